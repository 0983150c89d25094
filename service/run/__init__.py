"""Access to a run: its directory, its learner's admin service, its processes' environment."""
