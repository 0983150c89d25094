"""Sessions as the learner keeps them.

A session whose stream broke, or that is silent, is SUSPECT and keeps its lanes; only silence for the lease's
time to live ends it.
"""

import dataclasses
import enum
from concurrent.futures import Future

from protos.rpc.sessions import Session
from protos.unspool.v1 import learner_pb2


class SessionState(enum.StrEnum):
    """How sure the learner is of a worker."""

    JOINED = "joined"
    """Introduced; its stream has not come yet."""
    ACTIVE = "active"
    SUSPECT = "suspect"
    """Silent, or its stream broke; it keeps its lanes."""
    DRAINING = "draining"
    STUCK = "stuck"
    """Its heart beats and its work does not move; its lanes went to others."""


@dataclasses.dataclass
class WorkerSession(Session):
    """A worker's session at the learner.

    Attributes:
        stream: number of the stream that is open, or None.
        streams: streams it has opened.
        held: the lane states that it had in memory at its last Join, by lane.
        estimates: pushes accepted.
        stale_in_a_row: its latest estimates that were too old to be used.
        strikes: those of them since it last had to give a lane back for it.
        struck_since_s: when the first of these was judged.
        is_late: whether it has been so for long enough to be no accident.
        log_lines: log lines taken from it.
        reported: the state that the last event about it named.
        stack: the answer to the operator's question for its stack that is open, or None.
        records_stack: whether its next stack dump belongs in the event log.
    """

    stream: int | None = None
    streams: int = 0
    held: dict[int, learner_pb2.HeldLane] = dataclasses.field(default_factory=dict)
    estimates: int = 0
    stale_in_a_row: int = 0
    strikes: int = 0
    struck_since_s: float = 0.0
    is_late: bool = False
    log_lines: int = 0
    reported: SessionState = SessionState.JOINED
    stack: Future[str] | None = None
    records_stack: bool = False

    def state(self, now_s: float, heartbeat_s: float) -> SessionState:
        """Return what the session is at `now_s`."""
        if self.stream is None and not self.streams:
            return SessionState.JOINED
        if self.stream is None or self.is_silent(now_s, heartbeat_s):
            return SessionState.SUSPECT
        if self.stuck_at is not None:
            return SessionState.STUCK
        return SessionState.DRAINING if self.draining else SessionState.ACTIVE
