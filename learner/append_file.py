"""A file that grows by whole records, also on a disk that becomes full."""

import contextlib
import errno
import os
from pathlib import Path


class AppendFile:
    """Appends without a buffer, so that what could not be written is known to whoever wanted it written."""

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
