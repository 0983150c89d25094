"""Worker sessions: who is here, how long each has been silent, and when silence becomes absence.

A broken stream is not a dead worker. It makes the session SUSPECT, which keeps its lanes; only the lease's
time to live ends it. All times are the learner's own monotonic clock.
"""

import dataclasses
import enum
import statistics
from collections import deque
from collections.abc import Iterator
from typing import Final

from protos.unspool.v1 import learner_pb2

_SUSPECT_HEARTBEATS: Final = 2
_COMPILING_BUDGET_S: Final = 15 * 60.0
_COMPUTING_BUDGET_S: Final = 60.0
_COMPUTING_MEDIANS: Final = 10.0
_COMPUTE_TIMES: Final = 32


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
        held: estimates behind the lane states it still has in memory, by lane.
        estimates: pushes accepted.
        log_lines: log lines taken from it.
        reported: the state that the last event about it named.
        compute_times_s: of its latest estimates.
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
    held: dict[int, int] = dataclasses.field(default_factory=dict)
    estimates: int = 0
    log_lines: int = 0
    reported: SessionState = SessionState.JOINED
    compute_times_s: deque[float] = dataclasses.field(default_factory=lambda: deque(maxlen=_COMPUTE_TIMES))

    @property
    def name(self) -> str:
        """The worker's own name, stable over its processes."""
        return str(self.introduction.worker_name)

    def state(self, now_s: float, heartbeat_s: float) -> SessionState:
        """Return what the session is at `now_s`."""
        if self.stream is None and not self.streams:
            return SessionState.JOINED
        if self.stream is None or now_s - self.last_heard_s > _SUSPECT_HEARTBEATS * heartbeat_s:
            return SessionState.SUSPECT
        if self.stuck_at is not None:
            return SessionState.STUCK
        return SessionState.DRAINING if self.draining else SessionState.ACTIVE

    def beat(self, heartbeat: learner_pb2.Heartbeat) -> None:
        """Take a heartbeat; work that moves again ends being stuck."""
        self.heartbeat = heartbeat
        if self.stuck_at is not None and heartbeat.progress > self.stuck_at:
            self.stuck_at = None

    def overdue(self) -> str:
        """Say how its work exceeds what its phase may take, by the worker's own times; empty if not."""
        phases = learner_pb2.Heartbeat
        budget_s = None
        if self.heartbeat.phase == phases.COMPILING:
            budget_s = _COMPILING_BUDGET_S
        elif self.heartbeat.phase == phases.COMPUTING:
            median_s = (
                statistics.median(self.compute_times_s) if self.compute_times_s else _COMPILING_BUDGET_S
            )
            budget_s = max(_COMPUTING_BUDGET_S, _COMPUTING_MEDIANS * median_s)
        if budget_s is None or self.heartbeat.phase_age_s <= budget_s:
            return ""
        phase = phases.Phase.Name(self.heartbeat.phase).lower()
        return f"{phase} for {self.heartbeat.phase_age_s:.0f} s (allowed: {budget_s:.0f} s)"


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
