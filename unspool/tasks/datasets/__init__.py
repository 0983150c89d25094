"""Data sets, embedded or read from their standard files."""
