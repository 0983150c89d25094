"""Unrolled systems that are no learned optimizers: benchmarks of the literature, and examples to write one's
own by.
"""
