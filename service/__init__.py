"""What a person or a scheduler touches: the command line, configuration, launching and supervising a run."""
