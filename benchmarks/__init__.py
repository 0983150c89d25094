"""How fast it is: every figure is a ratio to something measured in the same process at the same time."""
