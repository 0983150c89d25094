"""Sessions as the learner keeps them.

A session whose stream broke, or that is silent, is SUSPECT and keeps its lanes; only silence for the lease's
time to live ends it.
"""

import dataclasses
import enum
from concurrent.futures import Future

from protos.rpc.send_queue import SendQueue
from protos.rpc.sessions import Session
from protos.unspool.v1 import learner_pb2


class SessionStatus(enum.StrEnum):
    """How sure the learner is of a worker."""

    JOINED = "joined"
    """It has joined; its stream is not open yet."""
    ACTIVE = "active"
    SUSPECT = "suspect"
    """Silent, or its stream broke; it keeps its lanes."""
    DRAINING = "draining"
    STUCK = "stuck"
    """It sends heartbeats but makes no progress; its lanes went to others."""


@dataclasses.dataclass
class WorkerSession(Session):
    """A worker's session at the learner.

    Attributes:
        stream: what is sent on the open stream, or None while there is none.
        has_connected: whether it ever had a stream.
        held: the lane states that it had in memory at its last Join, by lane.
        estimates: pushes accepted.
        stale_in_a_row: its latest estimates that were too old to be used.
        late_pushes: those of them since it last had to give a lane back for it.
        late_since_s: when the first of these was judged.
        is_late: whether it has been late for long enough to be no accident.
        log_lines: log lines taken from it.
        reported: the state that the last event about it named.
        stack: the stack dump that an admin waits for, or None.
        records_stack: whether its next stack dump belongs in the event log.
    """

    stream: SendQueue | None = None
    has_connected: bool = False
    held: dict[int, learner_pb2.HeldLane] = dataclasses.field(default_factory=dict)
    estimates: int = 0
    stale_in_a_row: int = 0
    late_pushes: int = 0
    late_since_s: float = 0.0
    is_late: bool = False
    log_lines: int = 0
    reported: SessionStatus = SessionStatus.JOINED
    stack: Future[str] | None = None
    records_stack: bool = False

    def send(self, message: learner_pb2.LearnerMessage) -> None:
        """Queue a message. What a worker without a stream misses is sent again when it opens one."""
        if self.stream is not None:
            self.stream.put(message)

    def state(self, now_s: float, heartbeat_s: float) -> SessionStatus:
        """Return what the session is at `now_s`."""
        if self.stream is None and not self.has_connected:
            return SessionStatus.JOINED
        if self.stream is None or self.is_silent(now_s, heartbeat_s):
            return SessionStatus.SUSPECT
        if self.stuck_at is not None:
            return SessionStatus.STUCK
        return SessionStatus.DRAINING if self.draining else SessionStatus.ACTIVE
