"""What a learner keeps on disk: checkpoints, snapshots, events, the table of updates, and who owns them."""
