"""A worker's session with its learner: client, messages, and reconnection of broken streams."""
