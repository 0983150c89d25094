"""Starting a run and keeping it running: learner, workers, restarts."""
