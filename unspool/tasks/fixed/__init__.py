"""Tasks with a fixed configuration that is part of their name."""
