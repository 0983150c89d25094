"""How a worker process ends, in the words that a supervisor reads."""

import enum
from dataclasses import dataclass


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
