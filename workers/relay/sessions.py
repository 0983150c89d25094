"""The workers behind a relay: who is there, how long each has been silent, and whose work hangs.

The rules are the learner's own, with its figures: a broken stream is not a dead worker, silence for the
lease's time to live is.
"""

import collections
import dataclasses
import secrets
from collections.abc import Iterator

from protos.rpc.liveness import COMPUTE_TIMES, SUSPECT_HEARTBEATS, gets_on, phase_budget_s
from protos.rpc.send_queue import SendQueue
from protos.unspool.v1 import learner_pb2


@dataclasses.dataclass
class RelayedWorker:
    """One process behind the relay, from its Join on.

    Attributes:
        worker_id: the relay's name for this session.
        introduction: its last Join.
        secret: binds a stream to the last Join.
        last_heard_s: when anything came from it.
        stream: what its open stream is sent, or None.
        heartbeat: its last.
        held: estimates behind the lane states that it has in memory, by lane.
        draining: whether it was asked to go.
        stuck_at: the progress at which it hangs, or None.
        compute_times_s: of its latest estimates.
    """

    worker_id: str
    introduction: learner_pb2.JoinRequest
    secret: str
    last_heard_s: float
    stream: SendQueue | None = None
    heartbeat: learner_pb2.Heartbeat = dataclasses.field(default_factory=learner_pb2.Heartbeat)
    held: dict[int, int] = dataclasses.field(default_factory=dict)
    draining: bool = False
    stuck_at: int | None = None
    compute_times_s: collections.deque[float] = dataclasses.field(
        default_factory=lambda: collections.deque(maxlen=COMPUTE_TIMES)
    )

    @property
    def name(self) -> str:
        """The worker's own name, stable over its processes."""
        return str(self.introduction.worker_name)

    @property
    def size(self) -> int:
        """How many workers it stands for: a relay may be behind a relay."""
        return max(1, self.heartbeat.workers)

    def can_work(self, now_s: float, heartbeat_s: float) -> bool:
        """Whether lanes may be given to it."""
        is_silent = now_s - self.last_heard_s > SUSPECT_HEARTBEATS * heartbeat_s
        is_empty = self.introduction.relay and not self.heartbeat.workers
        return not (
            self.stream is None or is_silent or self.draining or is_empty or self.stuck_at is not None
        )

    def join(self, introduction: learner_pb2.JoinRequest, now_s: float) -> None:
        """Take its words at a Join."""
        self.introduction, self.last_heard_s = introduction, now_s
        self.held = {lane.lane: lane.seq for lane in introduction.held}

    def beat(self, heartbeat: learner_pb2.Heartbeat) -> None:
        """Take a heartbeat; work that moves again ends being stuck."""
        if self.stuck_at is not None and gets_on(self.heartbeat, heartbeat, self.stuck_at):
            self.stuck_at = None
        self.heartbeat = heartbeat
        self.held = {lane.lane: lane.seq for lane in heartbeat.lanes}

    def hangs(self) -> bool:
        """Whether it takes longer over what it does than it should, by its own latest estimates."""
        budget_s = phase_budget_s(self.heartbeat, self.compute_times_s)
        return budget_s is not None and self.heartbeat.phase_age_s > budget_s

    def send(self, message: learner_pb2.LearnerMessage) -> None:
        """Write to it. What one without a stream misses, it is told when it opens one."""
        if self.stream is not None:
            self.stream.put(message)


class RelayedWorkers:
    """The sessions that have not expired, in order of joining."""

    def __init__(self) -> None:
        self._sessions: dict[str, RelayedWorker] = {}
        self._opened = 0

    def __len__(self) -> int:
        return len(self._sessions)

    def __iter__(self) -> Iterator[RelayedWorker]:
        return iter(list(self._sessions.values()))

    def open(self, introduction: learner_pb2.JoinRequest, now_s: float) -> RelayedWorker:
        """Begin a session."""
        self._opened += 1
        worker_id = f"{introduction.worker_name}#{self._opened}"
        worker = RelayedWorker(worker_id, introduction, secrets.token_urlsafe(32), now_s)
        self._sessions[worker_id] = worker
        return worker

    def clear(self) -> None:
        """Forget every session; numbers go on."""
        self._sessions.clear()

    def close(self, worker: RelayedWorker) -> None:
        """Forget a session."""
        self._sessions.pop(worker.worker_id, None)

    def able(self, now_s: float, heartbeat_s: float) -> list[RelayedWorker]:
        """Return those that lanes may be given to."""
        return [worker for worker in self if worker.can_work(now_s, heartbeat_s)]

    def tell(self, message: learner_pb2.LearnerMessage) -> None:
        """Write to everyone."""
        for worker in self:
            worker.send(message)

    def get(self, worker_id: str) -> RelayedWorker | None:
        """Return a session by its id."""
        return self._sessions.get(worker_id)

    def named(self, name: str) -> RelayedWorker | None:
        """Return the session of the worker that calls itself `name`."""
        return next((worker for worker in self if worker.name == name), None)

    def with_secret(self, secret: str) -> RelayedWorker | None:
        """Return the session that a stream belongs to; how wrong a secret is does not change the time."""
        found = None
        for worker in self:
            if secrets.compare_digest(worker.secret.encode(), secret.encode()):
                found = worker
        return found


def total_heartbeat(
    workers: RelayedWorkers, lanes: list[learner_pb2.HeldLane], progress: int
) -> learner_pb2.Heartbeat:
    """Return what a relay tells the learner in its workers' stead.

    The phase is that of the worker whose work moved last: one that hangs is the relay's own business.
    """
    here = [worker for worker in workers if worker.stream is not None]
    busy = [
        worker.heartbeat
        for worker in here
        if worker.stuck_at is None
        and worker.heartbeat.phase
        not in (learner_pb2.Heartbeat.IDLE, learner_pb2.Heartbeat.PHASE_UNSPECIFIED)
    ]
    freshest = min(busy, key=lambda heartbeat: heartbeat.phase_age_s, default=None)
    idle = next((worker.heartbeat.waiting_for for worker in here if worker.heartbeat.waiting_for), "a worker")
    total = learner_pb2.Heartbeat(
        phase=learner_pb2.Heartbeat.IDLE,
        waiting_for=idle,
        progress=progress,
        resident_bytes=sum(worker.heartbeat.resident_bytes for worker in here),
        inner_steps_per_s=sum(worker.heartbeat.inner_steps_per_s for worker in here),
        lanes=lanes,
        workers=sum(worker.size for worker in here),
    )
    if freshest is not None:
        total.phase, total.phase_age_s = freshest.phase, freshest.phase_age_s
        total.waiting_for = freshest.waiting_for
    return total
