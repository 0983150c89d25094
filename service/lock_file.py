"""The locks of a run directory as others see them: whether a process holds one, and who it says it is."""

import fcntl
import json
from pathlib import Path


def is_locked(path: Path) -> bool:
    """Whether a living process holds the lock; one that ends lets go of it, however it ends."""
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def holder_of(path: Path) -> tuple[int, str] | None:
    """Return process number and host of who wrote itself down last, or None if nobody can be read."""
    try:
        holder = json.loads(path.read_text(encoding="utf-8"))
        return int(holder["pid"]), str(holder["host"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
