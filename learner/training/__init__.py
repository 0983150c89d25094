"""The update thread, the outer optimizer, restoring, and writing to disk."""
