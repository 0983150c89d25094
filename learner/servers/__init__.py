"""The gRPC and HTTP servers of a learner."""
