"""Worker sessions: who is here, how long each has been silent, and when silence becomes absence.

A broken stream is not a dead worker. It makes the session SUSPECT, which keeps its lanes; only the lease's
time to live ends it. All times are the learner's own monotonic clock.
"""

import dataclasses
import enum
from collections.abc import Iterator
from concurrent.futures import Future

from protos.rpc.liveness import SUSPECT_HEARTBEATS, gets_on
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
class WorkerSession:
    """One worker process, from its Join on.

    Attributes:
        worker_id: the learner's name for this session; new for each process, and after an expiry.
        introduction: its last Join.
        secret: binds a stream to the last Join.
        last_heard_s: when anything came from it.
        stream: number of the stream that is open, or None.
        streams: streams it has opened.
        draining: whether it was asked to return its lanes and go.
        heartbeat: its last.
        stuck_at: the progress it was stuck at, or None.
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

    worker_id: str
    introduction: learner_pb2.JoinRequest
    secret: str
    last_heard_s: float
    stream: int | None = None
    streams: int = 0
    draining: bool = False
    heartbeat: learner_pb2.Heartbeat = dataclasses.field(default_factory=learner_pb2.Heartbeat)
    stuck_at: int | None = None
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

    @property
    def name(self) -> str:
        """The worker's own name, stable over its processes."""
        return str(self.introduction.worker_name)

    @property
    def is_empty_relay(self) -> bool:
        """Whether it speaks for workers of which none is there."""
        return bool(self.introduction.relay and not self.heartbeat.workers)

    def state(self, now_s: float, heartbeat_s: float) -> SessionState:
        """Return what the session is at `now_s`."""
        if self.stream is None and not self.streams:
            return SessionState.JOINED
        if self.stream is None or now_s - self.last_heard_s > SUSPECT_HEARTBEATS * heartbeat_s:
            return SessionState.SUSPECT
        if self.stuck_at is not None:
            return SessionState.STUCK
        return SessionState.DRAINING if self.draining else SessionState.ACTIVE

    def beat(self, heartbeat: learner_pb2.Heartbeat) -> None:
        """Take a heartbeat; work that moves again ends being stuck."""
        if self.stuck_at is not None and gets_on(self.heartbeat, heartbeat, self.stuck_at):
            self.stuck_at = None
        self.heartbeat = heartbeat


class SessionTable:
    """The sessions that have not expired, in order of joining."""

    def __init__(self) -> None:
        self._sessions: dict[str, WorkerSession] = {}
        self._opened = 0

    def __len__(self) -> int:
        return len(self._sessions)

    def __iter__(self) -> Iterator[WorkerSession]:
        return iter(self._sessions.values())

    def open(self, introduction: learner_pb2.JoinRequest, secret: str, now_s: float) -> WorkerSession:
        """Begin a session."""
        self._opened += 1
        worker_id = f"{introduction.worker_name}#{self._opened}"
        session = WorkerSession(worker_id, introduction, secret, last_heard_s=now_s)
        self._sessions[worker_id] = session
        return session

    def close(self, session: WorkerSession) -> None:
        """Forget a session."""
        self._sessions.pop(session.worker_id, None)

    def get(self, worker_id: str) -> WorkerSession | None:
        """Return a session by its id."""
        return self._sessions.get(worker_id)

    def named(self, name: str) -> WorkerSession | None:
        """Return a worker's session by the worker's own name."""
        return next((session for session in self if session.name == name), None)
