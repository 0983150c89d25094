"""The messages of one stream of a relay, turned into calls to its core; chunks are put together here."""

import dataclasses

from protos import codec
from protos.rpc.push import IncomingPush
from protos.rpc.session_stream import StreamReader
from protos.unspool.v1 import common_pb2, learner_pb2
from workers.relay.core import RelayCore

MAX_SNAPSHOT_BYTES = 1 << 30
"""Of one lane's unroll state. The learner has a limit of its own, which may be lower."""


@dataclasses.dataclass(frozen=True)
class _OpenSnapshot:
    """Grows with what comes, whatever its header promises."""

    snapshot: learner_pb2.Snapshot
    body: bytearray


class RelayInbound(StreamReader):
    """Takes what one stream brings, in order. At most one push and one snapshot are open at a time."""

    def __init__(self, core: RelayCore, worker_id: str) -> None:
        """Read for the session `worker_id`, whose sizes the learner's schema gives."""
        self._core = core
        self._worker_id = worker_id
        self._body_bytes = codec.body_bytes(core.reply.schema)
        self._push: IncomingPush | None = None
        self._snapshot: _OpenSnapshot | None = None

    def take(self, message: learner_pb2.WorkerMessage) -> None:
        match message.WhichOneof("body"):
            case "heartbeat":
                self._core.heartbeat(self._worker_id, message.heartbeat)
            case "push":
                self._take_push(message.push)
            case "snapshot":
                self._take_snapshot(message.snapshot)
            case "chunk":
                self._take_chunk(message.chunk)
            case "lane_return":
                self._core.return_lane(self._worker_id, message.lane_return)
            case "log" | "lane_failure" | "stack":
                self._core.pass_on(self._worker_id, message)

    def close(self) -> None:
        self._push = self._snapshot = None

    def _take_push(self, push: learner_pb2.GradientEstimatorOut) -> None:
        self._push = None
        if push.grad.WhichOneof("body") != "transfer":
            self._core.push(self._worker_id, push, push.grad.inline)
        elif not self._core.refuse_unread(self._worker_id, push):
            self._push = IncomingPush(push, self._body_bytes)

    def _take_snapshot(self, snapshot: learner_pb2.Snapshot) -> None:
        self._snapshot = None
        if 0 < snapshot.bytes <= MAX_SNAPSHOT_BYTES and self._core.wants_snapshot(self._worker_id, snapshot):
            self._snapshot = _OpenSnapshot(snapshot, bytearray())

    def _take_chunk(self, chunk: common_pb2.Chunk) -> None:
        if self._push is not None and self._push.is_continued_by(chunk):
            self._extend_push(self._push, chunk)
        elif self._snapshot is not None and chunk.transfer == self._snapshot.snapshot.transfer:
            self._extend_snapshot(self._snapshot, chunk)

    def _extend_push(self, pending: IncomingPush, chunk: common_pb2.Chunk) -> None:
        body = pending.add(chunk)
        if body is not None:
            self._push = None
            self._core.push(self._worker_id, pending.push, body)

    def _extend_snapshot(self, pending: _OpenSnapshot, chunk: common_pb2.Chunk) -> None:
        header, body = pending.snapshot, pending.body
        try:
            codec.check_chunk(chunk, header.transfer, len(body), header.bytes)
        except codec.CodecError:
            self._snapshot = None  # its worker will send another one
            return
        body += chunk.data
        if len(body) == header.bytes:
            self._snapshot = None
            self._core.snapshot(self._worker_id, header, bytes(body))
