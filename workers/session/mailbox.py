"""Where the worker and its session meet: what the learner has said, and what the worker has to say.

The worker reads orders, looks at the newest theta and puts in what is to be sent; the session's threads
deliver. One condition guards everything, and everything that a worker could wait for grows the revision: a
worker reads it, looks for something to do, and waits for it to change.
"""

import collections
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from protos import codec
from protos.unspool.v1 import common_pb2, learner_pb2
from workers.exits import End
from workers.session.outbox import Outbox, Parcel

_ORDERS = 65_536
"""Orders that may wait for the worker. A learner that sends more while one estimate runs is broken."""


@dataclass(frozen=True)
class Joined:
    """The learner has let this worker in, for the first time or again.

    Attributes:
        reply: what it said.
        held: the `(lane, incarnation)` named in the request: the only leases that can have survived.
        fresh: whether the learner knows of no earlier session of this process, so that no lease has survived.
    """

    reply: learner_pb2.JoinReply
    held: frozenset[tuple[int, int]]
    fresh: bool


@dataclass(frozen=True)
class Rejected:
    """The learner did not take a push as it was.

    Attributes:
        verdict: what it said.
        incarnation: of the lease under which the push was made, perhaps not the lane's lease now.
    """

    verdict: learner_pb2.PushVerdict
    incarnation: int


Order: TypeAlias = (
    Joined
    | learner_pb2.LaneGrant
    | learner_pb2.LaneRevocation
    | learner_pb2.Drain
    | Rejected
    | learner_pb2.LearnerMessage
)


class TooManyOrdersError(RuntimeError):
    """The learner sends orders faster than a worker could ever follow them."""


class Mailbox:
    """Both directions of one session. Safe to use from any thread."""

    def __init__(self, capacity: int = 64, *, forwards: bool = False) -> None:
        """Start empty; `has_room` says no once `capacity` parcels wait to be sent.

        With `forwards` all that the learner says is an order as it came, too: a relay passes it on.
        """
        self.forwards = forwards
        self._changed = threading.Condition()
        self._revision = 0
        self._outbox = Outbox(capacity)
        self._orders: collections.deque[Order] = collections.deque()
        self._theta: learner_pb2.ThetaAnnouncement | None = None
        self._chunk_bytes = 0
        self._transfers = 0
        self._stream_number = 0
        self._leaving = False
        self._end: End | None = None

    # For the worker.

    @property
    def revision(self) -> int:
        """Grows whenever anything has changed that a worker could wait for."""
        return self._revision

    @property
    def end(self) -> End | None:
        """Why the conversation is over, or None while it goes on."""
        return self._end

    @property
    def theta(self) -> learner_pb2.ThetaAnnouncement | None:
        """The newest theta that was announced since the last Join."""
        return self._theta

    @property
    def free_credits(self) -> int:
        """How many further pushes the learner would buffer."""
        with self._changed:
            return self._outbox.free_credits

    @property
    def has_room(self) -> bool:
        """Whether the queue of what is to be sent takes more."""
        with self._changed:
            return self._outbox.has_room

    def wait(self, seen: int, timeout_s: float | None = None) -> None:
        """Block until the revision differs from `seen`, or for `timeout_s`."""
        with self._changed:
            self._changed.wait_for(lambda: self._revision != seen, timeout_s)

    def wait_for_end(self, timeout_s: float) -> End | None:
        """Block until the conversation is over, or for `timeout_s`."""
        with self._changed:
            self._changed.wait_for(lambda: self._end is not None, timeout_s)
            return self._end

    def wake(self) -> None:
        """Let the worker look again, whatever it waits for."""
        with self._changed:
            self._change()

    def orders(self) -> Sequence[Order]:
        """Take what the learner has ordered since the last call, in order."""
        with self._changed:
            orders = tuple(self._orders)
            self._orders.clear()
            return orders

    def push(self, push: learner_pb2.GradientEstimatorOut, body: bytes) -> None:
        """Send an estimate, and send it again on each new stream until the learner's last word on it.

        Its id and what describes the body are filled in here.
        """
        with self._changed:
            push.push_id = self._new_transfer()
            push.grad.CopyFrom(codec.tensors(body, push.push_id, self._chunk_bytes))
            follows = body if push.grad.WhichOneof("body") == "transfer" else b""
            message = learner_pb2.WorkerMessage(push=push)
            self._put(Parcel(message, follows, push.push_id, push_id=push.push_id))

    def snapshot(self, snapshot: learner_pb2.Snapshot, body: bytes) -> None:
        """Send a lane's unroll state."""
        with self._changed:
            snapshot.transfer = self._new_transfer()
            self._put(Parcel(learner_pb2.WorkerMessage(snapshot=snapshot), body, snapshot.transfer))

    def return_lane(self, lane_return: learner_pb2.LaneReturn) -> None:
        """Give a lane back, after everything that was put in before."""
        with self._changed:
            self._put(Parcel(learner_pb2.WorkerMessage(lane_return=lane_return)))

    def log(self, level: str, text: str, failure: common_pb2.FailureReport | None = None) -> None:
        """Tell the learner's event log what a person should know, perhaps of what ended a worker."""
        line = learner_pb2.LogLine(level=level, text=text, failure=failure)
        with self._changed:
            self._say(learner_pb2.WorkerMessage(log=line))

    def report_failure(self, failure: learner_pb2.LaneFailure) -> None:
        """Tell the learner whose estimate raised, before anything that still waits."""
        with self._changed:
            self._say(learner_pb2.WorkerMessage(lane_failure=failure))

    def leave(self) -> None:
        """Close the stream once everything is sent."""
        with self._changed:
            self._leaving = True
            self._change()

    def finish(self, end: End) -> None:
        """Say that the conversation is over; the first reason given stays."""
        with self._changed:
            self._end = self._end or end
            self._stream_number += 1
            self._change()

    # For the session.

    @property
    def has_left(self) -> bool:
        """Whether the worker wants to leave and has nothing more to say."""
        with self._changed:
            return self._leaving and self._outbox.is_empty

    def joined(self, joined: Joined) -> None:
        """Note that the learner has let this worker in; what it said in an earlier session is void."""
        with self._changed:
            self._theta = None
            self._chunk_bytes = joined.reply.chunk_bytes
            self._order(joined)
            self._change()

    def new_stream(self, report: Callable[[], learner_pb2.Heartbeat]) -> Iterator[learner_pb2.WorkerMessage]:
        """Return what a new stream is to send, a heartbeat first. Any earlier stream's iterator ends."""
        with self._changed:
            self._stream_number += 1
            self._outbox.restart(self._chunk_bytes)
            self._outbox.beat(report())
            self._change()
            return self._outgoing(self._stream_number)

    def hang_up(self) -> None:
        """End the current stream's iterator."""
        with self._changed:
            self._stream_number += 1
            self._change()

    def beat(self, heartbeat: learner_pb2.Heartbeat) -> None:
        """Send `heartbeat` before anything else."""
        with self._changed:
            self._outbox.beat(heartbeat)
            self._change()

    def answer_stack(self, text: str) -> None:
        """Tell the learner what the threads of this process are doing."""
        with self._changed:
            self._say(learner_pb2.WorkerMessage(stack=learner_pb2.StackDump(text=text)))

    def hear(self, message: learner_pb2.LearnerMessage) -> None:
        """Take what the learner says; its goodbye and its questions are the session's to understand.

        Raises:
            TooManyOrdersError: more orders wait than any learner should send.
        """
        with self._changed:
            match message.WhichOneof("body"):
                case "heartbeat_ack":
                    self._outbox.credit(message.heartbeat_ack.credits)
                case "verdict":
                    self._hear_verdict(message.verdict)
                case "theta":
                    self._theta = message.theta
                case "grant":
                    self._outbox.credit(message.grant.credits)
                    self._order(message.grant)
                case "revocation":
                    self._order(message.revocation)
                case "drain":
                    self._order(message.drain)
            if self.forwards:
                self._order(message)
            self._change()

    def _hear_verdict(self, verdict: learner_pb2.PushVerdict) -> None:
        parcel = self._outbox.settle(verdict)
        self._outbox.credit(verdict.credits)
        if parcel is not None and verdict.verdict != learner_pb2.APPLIED:
            self._order(Rejected(verdict, parcel.message.push.incarnation))

    def _outgoing(self, stream_number: int) -> Iterator[learner_pb2.WorkerMessage]:
        while True:
            with self._changed:
                self._changed.wait_for(
                    lambda: self._stream_number != stream_number or not self._outbox.is_empty or self._leaving
                )
                if self._stream_number != stream_number:
                    return
                message = self._outbox.next_message()
                if message is None and self._leaving:
                    return
                self._change()
            if message is not None:
                yield message

    def _order(self, order: Order) -> None:
        if len(self._orders) >= _ORDERS:
            raise TooManyOrdersError(f"{_ORDERS} orders of the learner wait for the worker to read them")
        self._orders.append(order)

    def _new_transfer(self) -> int:
        self._transfers += 1
        return self._transfers

    def _say(self, message: learner_pb2.WorkerMessage) -> None:
        self._outbox.say(message)
        self._change()

    def _put(self, parcel: Parcel) -> None:
        self._outbox.put(parcel)
        self._change()

    def _change(self) -> None:
        self._revision += 1
        self._changed.notify_all()
