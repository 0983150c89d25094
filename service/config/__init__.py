"""Configuration: files, overrides, checks, certificates."""
