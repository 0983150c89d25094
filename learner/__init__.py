"""The learner process: it owns theta, leases lanes to workers, applies their gradients and serves status."""
