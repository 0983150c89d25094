"""Benchmarks. Most report ratios of two programs that one process measures in turn."""
