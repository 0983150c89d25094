"""Tasks whose configuration is fixed and is their name."""
