"""Crash-safe files: atomic replacement, appending of complete records, and locks."""

import contextlib
import errno
import fcntl
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import IO

PARTIAL = ".partial"
"""The name suffix of unfinished files."""


def write_durably(
    path: Path,
    data: bytes,
    *,
    writer: str = "",
    mode: int | None = None,
    before_rename: Callable[[], None] = lambda: None,
) -> None:
    """Write `data` to `path` atomically; return after it is durable.

    Args:
        path: the file's path.
        data: the complete content.
        writer: a part of the temporary name, for files that two processes may write at the same time.
        mode: the file's permissions, in effect before the first byte is written; by default, the process's
            umask applies.
        before_rename: called right before the rename; if it raises, the file stays unchanged.

    Raises:
        OSError: the data could not be written; the old file is unchanged and the temporary one removed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}{writer and f'.{writer}'}{PARTIAL}")
    try:
        partial.unlink(missing_ok=True)  # a file left by a crash may have other permissions
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
        # Free the space, which a full disk needs.
        partial.unlink(missing_ok=True)
        raise
    flush_to_disk(path.parent)


def remove_partial(directory: Path) -> None:
    """Delete unfinished files in `directory` and its subfolders, so that no process can finish them."""
    for path in [*directory.glob(f"*{PARTIAL}"), *directory.glob(f"*/*{PARTIAL}")]:
        path.unlink(missing_ok=True)


def flush_to_disk(path: Path) -> None:
    """Make a file's content, or a directory's entries, durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def try_lock(file: IO[bytes], *, shared: bool = False) -> bool:
    """Lock an open file until it is closed or the process exits; return False if another holds the lock."""
    try:
        fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def is_locked(path: Path) -> bool:
    """Whether a living process holds the lock `path`; a process releases it when it ends, however it ends."""
    try:
        with path.open("rb") as file:
            return not try_lock(file, shared=True)
    except FileNotFoundError:
        return False


def lock_holder(path: Path) -> tuple[int, str] | None:
    """Return the pid and host that the last holder of a lock wrote into it, or None."""
    try:
        holder = json.loads(path.read_text(encoding="utf-8"))
        return int(holder["pid"]), str(holder["host"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


class AppendFile:
    """A file for unbuffered appends, so that write errors reach the caller."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("ab", buffering=0)

    def append(self, record: bytes) -> None:
        """Append a record completely or not at all.

        Raises:
            OSError: the record could not be written.
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
        """Close the file; later appends raise ValueError."""
        self._file.close()
