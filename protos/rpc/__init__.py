"""Code of gRPC servers and clients shared by learner, relays and workers."""
