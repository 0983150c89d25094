"""Learned optimizers: optimizers with outer parameters theta."""
