"""The messages that a session has to send, in order, and the pushes that have no final verdict yet.

A push is delivered at least once: it is kept until its final verdict, and sent again on each new stream until
then. Heartbeats, log lines and the like are sent between two chunks of a body, so that a heartbeat waits for
one chunk at most.
"""

import collections
from collections.abc import Iterator
from dataclasses import dataclass

from protos import codec
from protos.rpc.push import SENT_AGAIN
from protos.unspool.v1 import learner_pb2

_NOTES = 64
"""Log lines and the like that wait for a stream; beyond this number the oldest are dropped."""


@dataclass(frozen=True)
class QueuedMessage:
    """A message, and the body that follows it in chunks.

    Attributes:
        message: sent first.
        body: sent after it; empty if there is none.
        transfer: identifies the body within its stream.
        push_id: of a push, or 0.
    """

    message: learner_pb2.WorkerMessage
    body: bytes = b""
    transfer: int = 0
    push_id: int = 0

    def pieces(self, chunk_bytes: int) -> Iterator[learner_pb2.WorkerMessage]:
        """Yield the message, then the chunks of its body."""
        yield self.message
        for chunk in codec.chunks(self.body, self.transfer, chunk_bytes):
            yield learner_pb2.WorkerMessage(chunk=chunk)


class Outbox:
    """The queue of one session. Not thread-safe: the session's lock guards it."""

    def __init__(self, capacity: int) -> None:
        """Start empty; `has_room` is False once `capacity` messages wait."""
        self._capacity = capacity
        self._chunk_bytes = 1
        self._heartbeat: learner_pb2.WorkerMessage | None = None
        self._notes: collections.deque[learner_pb2.WorkerMessage] = collections.deque(maxlen=_NOTES)
        self._waiting: collections.deque[QueuedMessage] = collections.deque()
        self._sending: Iterator[learner_pb2.WorkerMessage] | None = None
        self._sent: dict[int, QueuedMessage] = {}
        self._refused: dict[int, QueuedMessage] = {}
        self._unanswered: set[int] = set()
        self._credits = 0

    @property
    def has_room(self) -> bool:
        """Whether another message may be queued."""
        return len(self._waiting) < self._capacity

    @property
    def is_empty(self) -> bool:
        """Whether everything has been passed to the stream."""
        return not (self._heartbeat or self._notes or self._waiting)

    @property
    def free_credits(self) -> int:
        """How many more pushes the learner would buffer; unanswered ones count as buffered."""
        return max(0, self._credits - len(self._unanswered))

    def put(self, queued: QueuedMessage) -> None:
        """Queue a message behind the others."""
        self._waiting.append(queued)
        if queued.push_id:
            self._unanswered.add(queued.push_id)

    def set_heartbeat(self, heartbeat: learner_pb2.Heartbeat) -> None:
        """Send `heartbeat` next, instead of one that has not been sent yet."""
        self._heartbeat = learner_pb2.WorkerMessage(heartbeat=heartbeat)

    def send_soon(self, message: learner_pb2.WorkerMessage) -> None:
        """Send `message` between two chunks; it is dropped if too many others wait."""
        self._notes.append(message)

    def next_message(self) -> learner_pb2.WorkerMessage | None:
        """Return the next message to send, or None."""
        if self._heartbeat is not None:
            message, self._heartbeat = self._heartbeat, None
            return message
        if self._notes:
            return self._notes.popleft()
        return self._next_piece()

    def _next_piece(self) -> learner_pb2.WorkerMessage | None:
        while self._waiting:
            if self._sending is None:
                self._sending = self._waiting[0].pieces(self._chunk_bytes)
            piece = next(self._sending, None)
            if piece is not None:
                return piece
            self._sending = None
            queued = self._waiting.popleft()
            if queued.push_id:  # a push is kept until its final verdict
                self._sent[queued.push_id] = queued
        return None

    def restart(self, chunk_bytes: int) -> None:
        """Prepare for a new stream: resend the pushes without a final verdict, then what was interrupted."""
        self._chunk_bytes = chunk_bytes
        self._sending = None
        self._heartbeat = None
        self._credits = 0
        unsettled = sorted((self._sent | self._refused).values(), key=lambda queued: queued.push_id)
        self._waiting.extendleft(reversed(unsettled))
        self._unanswered.update(queued.push_id for queued in unsettled)
        self._sent.clear()
        self._refused.clear()

    def settle(self, verdict: learner_pb2.PushVerdict) -> QueuedMessage | None:
        """Apply the learner's verdict on a push; return the push, or None after ACCEPTED.

        A final verdict removes the push. After NO_CREDIT or CORRUPT it is sent again when there is a credit
        for it.
        """
        push_id = verdict.push_id
        self._unanswered.discard(push_id)
        if verdict.verdict == learner_pb2.ACCEPTED:
            return None
        queued = self._withdraw(push_id)
        if queued is not None and verdict.verdict in SENT_AGAIN:
            self._refused[push_id] = queued
        return queued

    def _withdraw(self, push_id: int) -> QueuedMessage | None:
        for settled in (self._sent, self._refused):
            if push_id in settled:
                return settled.pop(push_id)
        # The learner may answer before the last chunk is sent, because it reads the header first.
        for position, queued in enumerate(self._waiting):
            if queued.push_id == push_id:
                if position == 0:
                    self._sending = None
                del self._waiting[position]
                return queued
        return None

    def credit(self, credits: int) -> None:
        """Set how many more pushes the learner accepts; queue that many rejected pushes again."""
        self._credits = credits
        while self._refused and self.free_credits:
            push_id = next(iter(self._refused))
            self.put(self._refused.pop(push_id))
