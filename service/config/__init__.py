"""Configurations: files, overrides, checks, certificates."""
