"""A worker's conversation with its learner: client, messages, streams that break and come back."""
