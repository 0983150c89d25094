"""What servers and clients of the wire share, at the learner, at relays and at workers."""
