"""The state that a worker shares with the threads of its session: commands received, messages to send.

The worker takes commands, reads the newest theta and queues messages; the session's threads send them. One
condition guards all of it. Every change that a worker could wait for increments the revision: a worker reads
the revision, looks for something to do, and waits for the revision to change.
"""

import collections
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from protos import codec
from protos.unspool.v1 import common_pb2, learner_pb2
from workers.exits import End
from workers.session.outbox import Outbox, QueuedMessage

_MAX_COMMANDS = 65_536
"""Commands that may wait for the worker. A learner that sends more while one estimate runs is broken."""


@dataclass(frozen=True)
class Joined:
    """The learner has admitted this worker, for the first time or again.

    Attributes:
        reply: to the Join.
        held: the `(lane, fencing_token)` named in the request: the only leases that can have survived.
        fresh: whether the learner has no earlier session of this process, so that no lease has survived.
    """

    reply: learner_pb2.JoinReply
    held: frozenset[tuple[int, int]]
    fresh: bool


@dataclass(frozen=True)
class Rejected:
    """The learner did not accept a push.

    Attributes:
        verdict: the reason.
        fencing_token: of the lease under which the push was made, perhaps not the lane's lease now.
    """

    verdict: learner_pb2.PushVerdict
    fencing_token: int


Command: TypeAlias = (
    Joined
    | learner_pb2.LaneGrant
    | learner_pb2.LaneRevocation
    | learner_pb2.Drain
    | Rejected
    | learner_pb2.LearnerMessage
)


class TooManyCommandsError(RuntimeError):
    """The learner sends commands faster than a worker can execute them."""


class SessionState:
    """Both directions of one session. Safe to use from any thread."""

    def __init__(self, capacity: int = 64, *, forwards: bool = False) -> None:
        """Start empty; `has_room` is False once `capacity` messages wait to be sent.

        With `forwards`, every message of the learner is also queued as a command: a relay forwards it.
        """
        self.forwards = forwards
        self._changed = threading.Condition()  # its lock is reentrant
        self._revision = 0
        self._outbox = Outbox(capacity)
        self._commands: collections.deque[Command] = collections.deque()
        self._theta: learner_pb2.ThetaAnnouncement | None = None
        self._chunk_bytes = 0
        self._transfers = 0
        self._stream_number = 0
        self._leaving = False
        self._end: End | None = None

    # For the worker.

    @property
    def revision(self) -> int:
        """A number that increases with every change that a worker could wait for."""
        return self._revision

    @property
    def end(self) -> End | None:
        """Why the session is over, or None while it is open."""
        return self._end

    @property
    def theta(self) -> learner_pb2.ThetaAnnouncement | None:
        """The newest theta announced since the last Join."""
        return self._theta

    @property
    def free_credits(self) -> int:
        """How many more pushes the learner would buffer."""
        with self._changed:
            return self._outbox.free_credits

    @property
    def has_room(self) -> bool:
        """Whether another message may be queued."""
        with self._changed:
            return self._outbox.has_room

    def wait(self, seen: int, timeout_s: float | None = None) -> None:
        """Block until the revision differs from `seen`, or for `timeout_s`."""
        with self._changed:
            self._changed.wait_for(lambda: self._revision != seen, timeout_s)

    def wait_for_end(self, timeout_s: float) -> End | None:
        """Block until the session is over, or for `timeout_s`."""
        with self._changed:
            self._changed.wait_for(lambda: self._end is not None, timeout_s)
            return self._end

    def wake(self) -> None:
        """Wake every thread that waits for a change."""
        with self._changed:
            self._revision += 1
            self._changed.notify_all()

    def commands(self) -> Sequence[Command]:
        """Take the commands that have arrived since the last call, in order."""
        with self._changed:
            commands = tuple(self._commands)
            self._commands.clear()
            return commands

    def push(self, push: learner_pb2.GradientEstimatorOut, body: bytes) -> None:
        """Send an estimate, and send it again on each new stream until it has a final verdict.

        Fills in `push_id` and `grad`.
        """
        with self._changed:
            push.push_id = self._new_transfer()
            push.grad.CopyFrom(codec.tensors(body, push.push_id, self._chunk_bytes))
            follows = body if push.grad.WhichOneof("body") == "transfer" else b""
            message = learner_pb2.WorkerMessage(push=push)
            self._put(QueuedMessage(message, follows, push.push_id, push_id=push.push_id))

    def snapshot(self, snapshot: learner_pb2.Snapshot, body: bytes) -> None:
        """Send a lane's unroll state."""
        with self._changed:
            snapshot.transfer = self._new_transfer()
            self._put(QueuedMessage(learner_pb2.WorkerMessage(snapshot=snapshot), body, snapshot.transfer))

    def return_lane(self, lane_return: learner_pb2.LaneReturn) -> None:
        """Return a lane, after everything that was queued before."""
        self._put(QueuedMessage(learner_pb2.WorkerMessage(lane_return=lane_return)))

    def log(self, level: str, text: str, failure: common_pb2.FailureReport | None = None) -> None:
        """Add a line to the learner's event log, with a report of the failure if there was one."""
        line = learner_pb2.LogLine(level=level, text=text, failure=failure)
        self._send_soon(learner_pb2.WorkerMessage(log=line))

    def report_failure(self, failure: learner_pb2.LaneFailure) -> None:
        """Report a lane whose estimate raised, ahead of all queued bodies."""
        self._send_soon(learner_pb2.WorkerMessage(lane_failure=failure))

    def leave(self) -> None:
        """Close the stream once everything is sent."""
        with self._changed:
            self._leaving = True
            self.wake()

    def finish(self, end: End) -> None:
        """End the session; the first reason given is kept."""
        with self._changed:
            self._end = self._end or end
            self._stream_number += 1
            self.wake()

    # For the session.

    @property
    def has_left(self) -> bool:
        """Whether the worker wants to leave and everything is sent."""
        with self._changed:
            return self._leaving and self._outbox.is_empty

    def joined(self, joined: Joined) -> None:
        """Handle a reply to Join; announcements of an earlier session are void."""
        with self._changed:
            self._theta = None
            self._chunk_bytes = joined.reply.chunk_bytes
            self._command(joined)
            self.wake()

    def new_stream(self, report: Callable[[], learner_pb2.Heartbeat]) -> Iterator[learner_pb2.WorkerMessage]:
        """Return the messages of a new stream, a heartbeat first; end the iterator of any earlier one."""
        with self._changed:
            self._stream_number += 1
            self._outbox.restart(self._chunk_bytes)
            self._outbox.set_heartbeat(report())
            self.wake()
            return self._outgoing(self._stream_number)

    def close_stream(self) -> None:
        """End the current stream's iterator."""
        with self._changed:
            self._stream_number += 1
            self.wake()

    def send_heartbeat(self, heartbeat: learner_pb2.Heartbeat) -> None:
        """Send `heartbeat` ahead of everything else."""
        with self._changed:
            self._outbox.set_heartbeat(heartbeat)
            self.wake()

    def send_stack(self, text: str) -> None:
        """Send the stacks of this process's threads."""
        self._send_soon(learner_pb2.WorkerMessage(stack=learner_pb2.StackDump(text=text)))

    def receive(self, message: learner_pb2.LearnerMessage) -> None:
        """Handle a message of the learner, except for goodbyes and requests for stacks.

        Raises:
            TooManyCommandsError: more commands wait than a working learner sends.
        """
        with self._changed:
            match message.WhichOneof("body"):
                case "heartbeat_ack":
                    self._outbox.credit(message.heartbeat_ack.credits)
                case "verdict":
                    self._receive_verdict(message.verdict)
                case "theta":
                    self._theta = message.theta
                case "grant":
                    self._outbox.credit(message.grant.credits)
                    self._command(message.grant)
                case "revocation":
                    self._command(message.revocation)
                case "drain":
                    self._command(message.drain)
            if self.forwards:
                self._command(message)
            self.wake()

    def _receive_verdict(self, verdict: learner_pb2.PushVerdict) -> None:
        queued = self._outbox.settle(verdict)
        self._outbox.credit(verdict.credits)
        if queued is not None and verdict.verdict != learner_pb2.APPLIED:
            self._command(Rejected(verdict, queued.message.push.fencing_token))

    def _outgoing(self, stream_number: int) -> Iterator[learner_pb2.WorkerMessage]:
        while True:
            with self._changed:
                self._changed.wait_for(
                    lambda: self._stream_number != stream_number or not self._outbox.is_empty or self._leaving
                )
                if self._stream_number != stream_number:  # a newer stream sends the rest
                    return
                message = self._outbox.next_message()
                if message is None and self._leaving:
                    return
                self.wake()
            if message is not None:
                yield message

    def _command(self, command: Command) -> None:
        if len(self._commands) >= _MAX_COMMANDS:
            raise TooManyCommandsError(f"{_MAX_COMMANDS} commands of the learner are queued for the worker")
        self._commands.append(command)

    def _new_transfer(self) -> int:
        self._transfers += 1
        return self._transfers

    def _send_soon(self, message: learner_pb2.WorkerMessage) -> None:
        with self._changed:
            self._outbox.send_soon(message)
            self.wake()

    def _put(self, queued: QueuedMessage) -> None:
        with self._changed:
            self._outbox.put(queued)
            self.wake()
