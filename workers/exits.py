"""How a worker process reports its end to the supervisor: an exit code, and a note in a file.

The note gives the reason, which a code cannot. The pool passes the file's path in the environment.
"""

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from protos.exit_codes import ExitCode
from unspool.failure_report import last_line, traceback_of

EXIT_NOTE: Final = "UNSPOOL_EXIT_NOTE"
"""The environment variable that names the file of the note."""

_SUMMARY_CHARACTERS: Final = 600
_NOTE_BYTES: Final = 4096


@dataclass(frozen=True)
class End:
    """Why a worker stops.

    Attributes:
        code: exit code of the process.
        reason: for the log.
    """

    code: ExitCode
    reason: str

    @classmethod
    def crashed(cls, error: BaseException) -> Self:
        """Return the end of a worker by an exception: its tracebacks, the line in the user's code last."""
        return cls(ExitCode.FAILED, traceback_of(error))

    @property
    def summary(self) -> str:
        """The reason in one line; for an exception, its message and location."""
        if self.code is ExitCode.FAILED:
            return last_line(self.reason, _SUMMARY_CHARACTERS)
        return " ".join(map(str.strip, self.reason.strip().splitlines()))[:_SUMMARY_CHARACTERS]


def note_from_environment() -> Path | None:
    """Return the path of this process's note, and unset the variable so that no child inherits it."""
    path = os.environ.pop(EXIT_NOTE, "")
    return Path(path) if path else None


def write_note(path: Path | None, end: End) -> None:
    """Write the note, if it has a path; a full disk must not change how a process ends."""
    if path is not None:
        with contextlib.suppress(OSError):
            path.write_text(end.summary, encoding="utf-8")


def read_note(path: Path) -> str:
    """Return the note of the last process, or an empty string."""
    try:
        return path.read_bytes()[:_NOTE_BYTES].decode(errors="replace")
    except OSError:
        return ""


def clear_note(path: Path) -> None:
    """Remove the note of the last process, before the next one starts."""
    with contextlib.suppress(OSError):
        path.unlink(missing_ok=True)
