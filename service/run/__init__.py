"""A run from outside: its directory, its learner's admin service, its environment."""
