"""Launching a run and supervising it: learner, workers, restarts."""
