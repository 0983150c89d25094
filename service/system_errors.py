"""Messages for errors of the operating system: path, reason, remedy."""

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from protos.exit_codes import SystemRefusalError

_REMEDIES: Final = {
    errno.ENOENT: "make the folder first, or name another path",
    errno.ENOTDIR: "a file stands where a folder is needed: name another path",
    errno.EISDIR: "a folder stands where a file is needed: name a file",
    errno.EEXIST: "a file stands where a folder is needed: move it away, or work in another folder",
    errno.EACCES: "let this user read and write there, or name another path",
    errno.EPERM: "let this user read and write there, or name another path",
    errno.EROFS: "name a path on a disk that can be written to",
    errno.ENOSPC: "make room, or name a path on another disk",
    errno.EDQUOT: "make room, or name a path on another disk",
    errno.ENAMETOOLONG: "name a shorter path",
    errno.ELOOP: "a symbolic link leads back to itself: name another path",
    errno.EMFILE: "allow more open files: ulimit -n",
}


@contextlib.contextmanager
def naming(path: Path | str) -> Iterator[None]:
    """Set `path` as the file name of operating system errors raised in this block; some errors name no file.

    Raises:
        OSError: of the same kind, with `path` as its file name.
    """
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error


def system_error(error: OSError) -> SystemRefusalError:
    """Return the error that a command reports for an error of the operating system."""
    text = error.strerror or str(error) or type(error).__name__
    paths = [os.fsdecode(path) for path in (error.filename, error.filename2) if isinstance(path, str | bytes)]
    about = " -> ".join(paths) or "the operating system refused"
    remedy = _REMEDIES.get(error.errno or 0, "")
    return SystemRefusalError(f"{about}: {text}" + (f" ({remedy})" if remedy and paths else ""))
