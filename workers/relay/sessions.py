"""The sessions of a relay's workers, and the heartbeat that summarizes them for the learner."""

import collections
import dataclasses
from collections.abc import Iterable

from protos.rpc.liveness import COMPUTE_TIMES, phase_budget_s
from protos.rpc.sessions import Session
from protos.unspool.v1 import learner_pb2


@dataclasses.dataclass
class RelayedWorker(Session):
    """A worker's session at a relay.

    Attributes:
        compute_times_s: compute times of its latest estimates.
    """

    compute_times_s: collections.deque[float] = dataclasses.field(
        default_factory=lambda: collections.deque(maxlen=COMPUTE_TIMES)
    )

    @property
    def size(self) -> int:
        """The number of workers in this session: more than one if it is a relay."""
        return max(1, self.heartbeat.workers)

    def can_work(self, now_s: float, heartbeat_s: float) -> bool:
        """Whether lanes may be given to this worker."""
        is_able = self.stream is not None and self.stuck_at is None
        return is_able and not (self.draining or self.is_empty_relay or self.is_silent(now_s, heartbeat_s))

    def is_overdue(self) -> bool:
        """Whether the worker's phase exceeds its time budget, estimated from its latest estimates."""
        budget_s = phase_budget_s(self.heartbeat, self.compute_times_s)
        return budget_s is not None and self.heartbeat.phase_age_s > budget_s


def total_heartbeat(
    workers: Iterable[RelayedWorker], lanes: list[learner_pb2.HeldLane], progress: int
) -> learner_pb2.Heartbeat:
    """Return the heartbeat that a relay sends to the learner.

    Its phase is that of the worker with the most recent progress: the relay itself takes lanes from stuck
    workers.
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
