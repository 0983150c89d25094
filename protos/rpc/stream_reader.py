"""Reading of one session's stream: assembles pushes and snapshots, and dispatches other messages."""

import abc
from typing import Any, Final

from protos import codec
from protos.rpc.push import IncomingPush, checksum_of
from protos.unspool.v1.common_pb2 import Chunk
from protos.unspool.v1.learner_pb2 import GradientEstimatorOut, Snapshot, WorkerMessage

_SINGLE_MESSAGES: Final = frozenset({"heartbeat", "lane_return", "lane_failure", "stack", "log"})


class IncomingSnapshot(abc.ABC):
    """A snapshot that is being received."""

    @abc.abstractmethod
    def add(self, chunk: Chunk) -> bool:
        """Append the next chunk; return True if the snapshot is complete or has failed."""

    @abc.abstractmethod
    def abort(self) -> None:
        """Discard the received data."""


class SessionEvents(abc.ABC):
    """The handlers of a worker's messages at a learner or relay. They must not raise on any message."""

    @property
    @abc.abstractmethod
    def body_bytes(self) -> int:
        """The size of a gradient in bytes, by the schema."""

    @abc.abstractmethod
    def wants_body(self, push: GradientEstimatorOut) -> bool:
        """Return whether to receive the body that follows `push`; if not, answer the push."""

    @abc.abstractmethod
    def push(self, push: GradientEstimatorOut, body: codec.Buffer | codec.CodecError) -> None:
        """Handle a push with its body, or with the error that prevented receiving the body."""

    @abc.abstractmethod
    def receive_snapshot(self, snapshot: Snapshot) -> IncomingSnapshot | None:
        """Prepare to receive a snapshot; return None to ignore it."""

    @abc.abstractmethod
    def message(self, kind: str, message: Any) -> None:
        """Handle any other message; `kind` is the name of its field in `WorkerMessage`."""


class StreamReader:
    """Processes the messages of one stream in order, with at most one push and one snapshot open at a time.

    Memory use is bounded by the schema (for a push) and by the host's limit (for a snapshot). Chunks of an
    ignored or failed body are dropped.
    """

    def __init__(self, events: SessionEvents) -> None:
        self._events = events
        self._push: IncomingPush | None = None
        self._snapshot: tuple[int, IncomingSnapshot] | None = None

    def take(self, message: WorkerMessage) -> None:
        """Process a message."""
        match message.WhichOneof("body"):
            case "push":
                self._take_push(message.push)
            case "snapshot":
                self._take_snapshot(message.snapshot)
            case "chunk":
                self._take_chunk(message.chunk)
            case str(kind) if kind in _SINGLE_MESSAGES:
                self._events.message(kind, getattr(message, kind))

    def close(self) -> None:
        """Discard incomplete bodies; the worker sends them again over its next stream."""
        self._push = None
        if self._snapshot is not None:
            self._snapshot[1].abort()
            self._snapshot = None

    def _take_push(self, push: GradientEstimatorOut) -> None:
        self._push = None
        if checksum_of(push) is not None:
            self._events.push(push, push.grad.inline)
        elif self._events.wants_body(push):
            self._push = IncomingPush(push, self._events.body_bytes)

    def _take_snapshot(self, snapshot: Snapshot) -> None:
        if self._snapshot is not None:
            self._snapshot[1].abort()
        incoming = self._events.receive_snapshot(snapshot)
        self._snapshot = None if incoming is None else (snapshot.transfer, incoming)

    def _take_chunk(self, chunk: Chunk) -> None:
        if self._push is not None and self._push.is_continued_by(chunk):
            body = self._push.add(chunk)
            if body is not None:
                push, self._push = self._push.push, None
                self._events.push(push, body)
        elif self._snapshot is not None:
            transfer, incoming = self._snapshot
            if chunk.transfer == transfer and incoming.add(chunk):
                self._snapshot = None
