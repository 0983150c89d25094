"""The rules that change the state of a run, as methods that any thread may call."""
