"""The process that holds theta: it leases lanes to workers, applies their gradients, and says how it goes."""
