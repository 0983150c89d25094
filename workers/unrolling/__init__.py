"""A worker's work on its lanes: it takes up leases, unrolls, and computes gradients and snapshots."""
