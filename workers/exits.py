"""How a worker process ends, in the words that a supervisor reads."""

import enum
from dataclasses import dataclass
from typing import Final, Self

from unspool.failure_report import traceback_of

_SUMMARY_CHARACTERS: Final = 600


class ExitCode(enum.IntEnum):
    """Exit code of a worker process."""

    OK = 0
    """The run finished, was stopped, or this worker was drained."""
    CRASHED = 70
    """An exception; its traceback is in the log and was sent to the learner."""
    EVICTED = 71
    """The learner took this worker's lanes away; a process started afresh may do better."""
    ORPHANED = 75
    """No learner answered for the orphan time to live."""
    REFUSED = 77
    """The learner will not have this worker, nor another one started the same way: its token, its code."""


@dataclass(frozen=True)
class End:
    """Why a worker stops working.

    Attributes:
        code: what its process exits with.
        reason: for the log.
    """

    code: ExitCode
    reason: str

    @classmethod
    def crashed(cls, error: BaseException) -> Self:
        """Return the end of a worker by an exception: its tracebacks, and the user's own line as the last."""
        return cls(ExitCode.CRASHED, traceback_of(error))

    @property
    def summary(self) -> str:
        """The reason in one line; of an exception what it says and where."""
        lines = self.reason.strip().splitlines() or [""]
        text = lines[-1] if self.code is ExitCode.CRASHED else " ".join(map(str.strip, lines))
        return text[:_SUMMARY_CHARACTERS]
