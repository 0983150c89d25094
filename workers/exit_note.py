"""What a worker process says of its end, in a file that its pool names; a code says too little."""

import contextlib
import os
from pathlib import Path
from typing import Final

from workers.exits import End

EXIT_NOTE: Final = "UNSPOOL_EXIT_NOTE"
"""The environment's name for the file."""

_BYTES: Final = 4096


def taken_from_environment() -> Path | None:
    """Return where this process is to leave its note; processes that it starts are not told."""
    path = os.environ.pop(EXIT_NOTE, "")
    return Path(path) if path else None


def write(path: Path | None, end: End) -> None:
    """Leave a note, if there is a place for it; a full disk must not change how a process ends."""
    if path is not None:
        with contextlib.suppress(OSError):
            path.write_text(end.summary, encoding="utf-8")


def read(path: Path) -> str:
    """Return what the last process said of its end, or nothing."""
    try:
        return path.read_bytes()[:_BYTES].decode(errors="replace")
    except OSError:
        return ""


def clear(path: Path) -> None:
    """Make room for the note of the next process."""
    with contextlib.suppress(OSError):
        path.unlink(missing_ok=True)
