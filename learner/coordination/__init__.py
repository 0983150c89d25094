"""The rules that change the state of a run, as thread-safe methods."""
