"""The update thread: what moves theta, and what it writes."""
