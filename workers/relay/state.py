"""The state of a relay, which all its rules share."""

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
    """The state of a relay, in parts that are independent of each other.

    Attributes:
        session_state: state of the relay's own session with the learner.
        clock: monotonic time in seconds.
        reply: the learner's reply to the last Join; empty before the first.
        pushes: the pending pushes.
        workers: the sessions of its workers.
        lanes: the lanes leased to the relay.
        theta: the newest theta announcement, as received, or None.
        credits: how many more pushes the learner accepts, as of its last message.
        progress: number of estimates received.
        draining: the command to drain, or None.
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
        self.reset(self.reply)

    @property
    def has_joined(self) -> bool:
        """Whether the learner has ever admitted this relay."""
        return bool(self.reply.session_id)

    @property
    def outer_step(self) -> int:
        """The newest announced outer step."""
        return self.theta.theta.outer_step if self.theta is not None else int(self.reply.outer_step)

    @property
    def lease_ttl_s(self) -> float:
        """Silence, in seconds, after which a worker's lanes are returned."""
        return float(self.reply.lease_ttl_s or _DEFAULT_TTL_HEARTBEATS * self.reply.heartbeat_s)

    def reset(self, reply: learner_pb2.JoinReply) -> None:
        """Discard all state of the previous session with the learner."""
        self.reply = reply
        self.pushes = RelayPushes(self.session_state, reply.schema, reply.lanes_total if reply.merges else 1)
        self.workers.clear()
        self.lanes.clear()
        self.theta, self.credits = None, 0

    def sender(self, session_id: str) -> RelayedWorker | None:
        """Return the session that sent a message and note the time; None if it expired."""
        worker = self.workers.get(session_id)
        if worker is not None:
            worker.last_message_s = self.clock()
        return worker

    def able(self) -> list[RelayedWorker]:
        """Return the workers that may be given lanes now."""
        if self.draining is not None:
            return []
        now_s, heartbeat_s = self.clock(), self.reply.heartbeat_s
        return [worker for worker in self.workers if worker.can_work(now_s, heartbeat_s)]

    def send_to_all(self, message: learner_pb2.LearnerMessage) -> None:
        for worker in self.workers:
            worker.send(message)

    def share(self, worker: RelayedWorker) -> int:
        """Return how many more pushes a worker may have outstanding.

        This is the allowance of its lanes minus its pushes that the learner has accepted and not yet applied.
        If each lane has a whole number of credits, the result equals what the learner itself would grant the
        worker.
        """
        return max(0, self.allowance(worker) - self.pushes.accepted(worker.session_id))

    def allowance(self, worker: RelayedWorker) -> int:
        """Return how many pushes of a worker the learner has room for, including those already accepted."""
        own, all_lanes = len(self.lanes.of(worker.session_id)), len(self.lanes)
        room = self.credits + self.pushes.accepted()
        # Rounded up, so that every worker with a lane has a share while there is room.
        return -(-room * own // all_lanes) if all_lanes else 0
