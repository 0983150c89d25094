"""Files that a crash or a full disk leaves whole: replaced at once, grown by whole records, locked."""

import contextlib
import errno
import fcntl
import os
from collections.abc import Callable
from pathlib import Path
from typing import IO

PARTIAL = ".partial"
"""What the names of files end with that are not whole yet."""


def write_durably(
    path: Path,
    data: bytes,
    *,
    writer: str = "",
    mode: int | None = None,
    before_rename: Callable[[], None] = lambda: None,
) -> None:
    """Write `data` to `path`, and return when it would survive a power cut.

    Args:
        path: of the file.
        data: all of it.
        writer: part of the temporary name, where two processes may write the same file.
        mode: the file's permissions, from its first byte on; by default those that the process gives.
        before_rename: called when only the rename is left; what it raises, leaves everything as it was.

    Raises:
        OSError: the disk refused; what was there before is untouched, and what was begun is gone.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}{writer and f'.{writer}'}{PARTIAL}")
    try:
        partial.unlink(missing_ok=True)  # what a crash left has permissions of its own
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT, 0o666 if mode is None else 0o600)
        with os.fdopen(descriptor, "wb") as file:
            if mode is not None:
                os.fchmod(file.fileno(), mode)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        before_rename()
        partial.replace(path)
    except BaseException:
        # A disk that is full has no room for a file that will not be read.
        partial.unlink(missing_ok=True)
        raise
    flush_to_disk(path.parent)


def remove_partial(directory: Path) -> None:
    """Delete unfinished files in `directory` and its folders, so that no process can finish them."""
    for path in [*directory.glob(f"*{PARTIAL}"), *directory.glob(f"*/*{PARTIAL}")]:
        path.unlink(missing_ok=True)


def flush_to_disk(path: Path) -> None:
    """Make a file's content, or a directory's names, durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def try_lock(file: IO[bytes], *, shared: bool = False) -> bool:
    """Take the lock of an open file, which ends with the process; return False if another process has it."""
    try:
        fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


class AppendFile:
    """Appends without a buffer, so that the caller learns what could not be written."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("ab", buffering=0)

    def append(self, record: bytes) -> None:
        """Write a record, all of it or nothing.

        Raises:
            OSError: the disk refused.
            ValueError: the file is closed.
        """
        size = os.fstat(self._file.fileno()).st_size
        try:
            if self._file.write(record) != len(record):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), self._file.name)
        except OSError:
            with contextlib.suppress(OSError):
                self._file.truncate(size)
            raise

    def close(self) -> None:
        """Close the file; what is appended from now on is refused."""
        self._file.close()
