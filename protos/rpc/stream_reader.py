"""Reading of one session's stream: assembles pushes and snapshots, and dispatches other messages."""

from typing import Final

from protos import codec
from protos.rpc.push import checksum_of
from protos.rpc.session_host import IncomingSnapshot, SessionHost
from protos.unspool.v1.common_pb2 import Chunk
from protos.unspool.v1.learner_pb2 import GradientEstimatorOut, Snapshot, WorkerMessage

_SINGLE_MESSAGES: Final = frozenset({"heartbeat", "lane_return", "lane_failure", "stack", "log"})


class StreamReader:
    """Processes the messages of one stream in order, with at most one push and one snapshot open at a time.

    Memory use is bounded by the schema (for a push) and by the host's limit (for a snapshot). Chunks of an
    ignored or failed body are dropped.
    """

    def __init__(self, host: SessionHost, session_id: str) -> None:
        self._host = host
        self._session_id = session_id
        self._body_bytes = host.body_bytes()
        self._push: tuple[GradientEstimatorOut, codec.Assembler] | None = None
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
                self._host.message(self._session_id, kind, getattr(message, kind))

    def close(self) -> None:
        """Discard incomplete bodies; the worker sends them again over its next stream."""
        self._push = None
        if self._snapshot is not None:
            self._snapshot[1].abort()
            self._snapshot = None

    def _take_push(self, push: GradientEstimatorOut) -> None:
        self._push = None
        if checksum_of(push) is not None:
            self._host.push(self._session_id, push, push.grad.inline)
        elif self._host.wants_body(self._session_id, push):
            self._push = push, codec.Assembler(push.grad.transfer, self._body_bytes)

    def _take_snapshot(self, snapshot: Snapshot) -> None:
        if self._snapshot is not None:
            self._snapshot[1].abort()
        incoming = self._host.receive_snapshot(self._session_id, snapshot)
        self._snapshot = None if incoming is None else (snapshot.transfer, incoming)

    def _take_chunk(self, chunk: Chunk) -> None:
        if self._push is not None and chunk.transfer == self._push[1].transfer:
            self._take_piece(chunk, *self._push)
        elif self._snapshot is not None:
            transfer, incoming = self._snapshot
            if chunk.transfer == transfer and incoming.add(chunk):
                self._snapshot = None

    def _take_piece(self, chunk: Chunk, push: GradientEstimatorOut, assembler: codec.Assembler) -> None:
        body: codec.Buffer | codec.CodecError
        try:
            assembler.add(chunk)
            if not assembler.complete:
                return
            body = assembler.body()
        except codec.CodecError as error:
            body = error
        self._push = None
        self._host.push(self._session_id, push, body)
