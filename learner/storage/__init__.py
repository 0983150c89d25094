"""The learner's files: checkpoints, snapshots, events, metrics, and the ownership of the run directory."""
