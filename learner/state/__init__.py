"""The state of a run, in parts that do not know each other."""
