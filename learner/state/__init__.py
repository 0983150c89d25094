"""The state of a run, in independent parts."""
