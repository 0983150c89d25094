"""The learner's worker sessions.

A session that is silent or whose stream broke is SUSPECT and keeps its lanes; only silence for the lease's
time to live ends it.
"""

import dataclasses
import enum
from concurrent.futures import Future

from protos.rpc.sessions import Session


class SessionStatus(enum.StrEnum):
    """The liveness of a worker, as the learner sees it."""

    JOINED = "joined"
    """The worker has joined; its stream is not open yet."""
    ACTIVE = "active"
    SUSPECT = "suspect"
    """The worker is silent or its stream broke; it keeps its lanes."""
    DRAINING = "draining"
    STUCK = "stuck"
    """The worker sends heartbeats but makes no progress; its lanes were reassigned."""


@dataclasses.dataclass
class WorkerSession(Session):
    """A worker's session at the learner.

    Attributes:
        has_connected: whether it has ever had a stream.
        estimates: the number of accepted estimates.
        stale_in_a_row: the number of consecutive stale pushes up to the last.
        late_pushes: the number of those since it was last judged to be late.
        late_since_s: when the first of these was judged.
        is_late: whether its pushes have been stale for long enough to exclude a short delay.
        log_lines: the number of log lines recorded.
        reported: the status that the last event about it reported.
        stack: the future of the stack dump that an admin waits for, or None.
        records_stack: whether its next stack dump goes into the event log.
    """

    has_connected: bool = False
    estimates: int = 0
    stale_in_a_row: int = 0
    late_pushes: int = 0
    late_since_s: float = 0.0
    is_late: bool = False
    log_lines: int = 0
    reported: SessionStatus = SessionStatus.JOINED
    stack: Future[str] | None = None
    records_stack: bool = False

    def state(self, now_s: float, heartbeat_s: float) -> SessionStatus:
        """Return the session's status at `now_s`."""
        if self.stream is None and not self.has_connected:
            return SessionStatus.JOINED
        if self.stream is None or self.is_silent(now_s, heartbeat_s):
            return SessionStatus.SUSPECT
        if self.stuck_at is not None:
            return SessionStatus.STUCK
        return SessionStatus.DRAINING if self.draining else SessionStatus.ACTIVE
