"""The upper bound of all waits in tests."""

from typing import Final

PATIENCE_S: Final = 240.0
"""The maximum duration of any wait for a process, a thread or a message. Only failing tests reach it."""
