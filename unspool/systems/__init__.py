"""Unrolled systems other than learned optimizers: benchmarks from the literature and examples."""
