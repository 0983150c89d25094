"""The user interface: the command line, configuration, launching and supervising a run."""
