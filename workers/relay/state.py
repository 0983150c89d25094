"""What a relay knows: the parts that every one of its rules reads or moves."""

import dataclasses
from collections.abc import Callable

from protos.rpc.sessions import SessionTable
from protos.unspool.v1 import learner_pb2
from workers.relay.lanes import RelayedLanes
from workers.relay.pushes import RelayPushes
from workers.relay.sessions import RelayedWorker
from workers.session.session_state import SessionState

_DEFAULT_TTL_HEARTBEATS = 6.0


@dataclasses.dataclass
class RelayState:
    """The state of a relay, in parts that do not know each other.

    Attributes:
        session_state: the relay's own conversation with the learner.
        clock: monotonic seconds.
        reply: what the learner said at the last Join; empty before the first.
        pushes: those that the relay answers for.
        workers: that are behind it.
        lanes: that it has leased.
        theta: the newest announcement, as it came, or None.
        credits: further pushes that the learner would take, as it said last.
        progress: estimates that have come.
        draining: the command to go, once there is one.
    """

    session_state: SessionState
    clock: Callable[[], float]
    reply: learner_pb2.JoinReply = dataclasses.field(default_factory=learner_pb2.JoinReply)
    pushes: RelayPushes = dataclasses.field(init=False)
    workers: SessionTable[RelayedWorker] = dataclasses.field(
        default_factory=lambda: SessionTable(RelayedWorker)
    )
    lanes: RelayedLanes = dataclasses.field(default_factory=RelayedLanes)
    theta: learner_pb2.LearnerMessage | None = None
    credits: int = 0
    progress: int = 0
    draining: learner_pb2.Drain | None = None

    def __post_init__(self) -> None:
        self.begin_afresh(self.reply)

    @property
    def has_joined(self) -> bool:
        """Whether the learner has ever let this relay in."""
        return bool(self.reply.worker_id)

    @property
    def version(self) -> int:
        """Theta's version, as far as it was announced."""
        return self.theta.theta.version if self.theta is not None else int(self.reply.version)

    @property
    def lease_ttl_s(self) -> float:
        """Silence after which a worker's lanes go to others."""
        return float(self.reply.lease_ttl_s or _DEFAULT_TTL_HEARTBEATS * self.reply.heartbeat_s)

    def begin_afresh(self, reply: learner_pb2.JoinReply) -> None:
        """Forget everything that an earlier session with the learner was about."""
        self.reply = reply
        self.pushes = RelayPushes(self.session_state, reply.schema, reply.lanes_total if reply.merges else 1)
        self.workers.clear()
        self.lanes.clear()
        self.theta, self.credits = None, 0

    def heard(self, worker_id: str) -> RelayedWorker | None:
        """Return the session that a message came from, and note that it lives; None if it expired."""
        worker = self.workers.get(worker_id)
        if worker is not None:
            worker.last_heard_s = self.clock()
        return worker

    def able(self) -> list[RelayedWorker]:
        """Return the workers that lanes may be given to now."""
        if self.draining is not None:
            return []
        now_s, heartbeat_s = self.clock(), self.reply.heartbeat_s
        return [worker for worker in self.workers if worker.can_work(now_s, heartbeat_s)]

    def send_to_all(self, message: learner_pb2.LearnerMessage) -> None:
        """Send a message to every worker."""
        for worker in self.workers:
            worker.send(message)

    def share(self, worker: RelayedWorker) -> int:
        """Return how many further pushes a worker may have outstanding.

        Its lanes' share of everything that the learner has room for, less what it already has there. With
        whole credits for each lane that is exactly what the learner itself would say to the worker.
        """
        return max(0, self.allowance(worker) - self.pushes.accepted(worker.worker_id))

    def allowance(self, worker: RelayedWorker) -> int:
        """Return how many pushes of a worker the learner has room for, those that it has included."""
        own, all_lanes = len(self.lanes.of(worker.worker_id)), len(self.lanes)
        room = self.credits + self.pushes.accepted()
        return -(-room * own // all_lanes) if all_lanes else 0
