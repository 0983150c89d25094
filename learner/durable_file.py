"""Writing a file so that a crash leaves either all of it or what was there before."""

import os
from collections.abc import Callable
from pathlib import Path

PARTIAL = ".partial"
"""What the names of files end with that are not whole yet."""


def write_durably(
    path: Path, data: bytes, *, writer: str = "", before_rename: Callable[[], None] = lambda: None
) -> None:
    """Write `data` to `path`, and return when it would survive a power cut.

    Args:
        path: of the file.
        data: all of it.
        writer: part of the temporary name, where two processes may write the same file.
        before_rename: called when only the rename is left; what it raises, leaves everything as it was.

    Raises:
        OSError: the disk refused; what was there before is untouched, and what was begun is gone.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}{writer and f'.{writer}'}{PARTIAL}")
    try:
        with partial.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        before_rename()
        partial.replace(path)
    except BaseException:
        # A disk that is full has no room for what nobody will read.
        partial.unlink(missing_ok=True)
        raise
    flush_to_disk(path.parent)


def remove_partial(directory: Path) -> None:
    """Delete what was begun in `directory` and its folders, so that nobody can finish it any more."""
    for path in [*directory.glob(f"*{PARTIAL}"), *directory.glob(f"*/*{PARTIAL}")]:
        path.unlink(missing_ok=True)


def flush_to_disk(path: Path) -> None:
    """Make a file's content, or a directory's names, durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
