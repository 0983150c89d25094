"""What a worker does with its lanes: it takes leases, unrolls, and makes gradients and snapshots."""
