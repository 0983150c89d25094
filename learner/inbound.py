"""The messages of one worker's stream, turned into calls to the core; chunks are put together here."""

import dataclasses
from collections.abc import Callable
from typing import Any, Final

from learner.admission import Body
from learner.core import LearnerCore
from learner.errors import CorruptSnapshotError
from learner.runtime import Runtime
from learner.snapshots import SnapshotReceiver, SnapshotRef, SnapshotStore
from protos import codec
from protos.exit_codes import FencedError
from protos.rpc.push import IncomingPush
from protos.rpc.session_stream import StreamReader
from protos.unspool.v1 import learner_pb2
from protos.unspool.v1.common_pb2 import Chunk, Schema

_PROBLEM: Final = "snapshots"
_FOR_THE_CORE: Final[dict[str, Callable[[LearnerCore, str, Any], None]]] = {
    "heartbeat": LearnerCore.heartbeat,
    "lane_return": LearnerCore.return_lane,
    "lane_failure": LearnerCore.lane_failed,
    "stack": LearnerCore.stack,
    "log": LearnerCore.log,
}
"""What consists of one message."""


@dataclasses.dataclass(frozen=True)
class _OpenSnapshot:
    transfer: int
    incarnation: int
    receiver: SnapshotReceiver


class Inbound(StreamReader):
    """Takes what one stream brings, in order. At most one push and one snapshot are open at a time.

    What it holds is bounded by the schema (a push) and by the learner's limit (a snapshot, on disk). Chunks
    of a body that was not wanted, or that was given up, are dropped.
    """

    def __init__(self, runtime: Runtime, worker_id: str, schema: Schema, snapshots: SnapshotStore) -> None:
        self._runtime = runtime
        self._worker_id = worker_id
        self._schema = schema
        self._snapshots = snapshots
        self._body_bytes = codec.body_bytes(schema)
        self._push: IncomingPush | None = None
        self._snapshot: _OpenSnapshot | None = None

    def take(self, message: learner_pb2.WorkerMessage) -> None:
        match message.WhichOneof("body"):
            case "push":
                self._take_push(message.push)
            case "snapshot":
                self._take_snapshot(message.snapshot)
            case "chunk":
                self._take_chunk(message.chunk)
            case str(kind) if kind in _FOR_THE_CORE:
                with self._runtime.locked() as core:
                    _FOR_THE_CORE[kind](core, self._worker_id, getattr(message, kind))

    def close(self) -> None:
        self._push = None
        self._give_up_snapshot()

    def _take_push(self, push: learner_pb2.GradientEstimatorOut) -> None:
        if push.grad.WhichOneof("body") != "transfer":
            self._finish_push(push, Body.read(push.grad.inline, push.grad.crc32, self._schema))
            return
        with self._runtime.locked() as core:
            refused = core.refuse_unread(self._worker_id, push)
        self._push = None if refused else IncomingPush(push, self._body_bytes)

    def _finish_push(self, push: learner_pb2.GradientEstimatorOut, body: Body) -> None:
        with self._runtime.locked() as core:
            core.push(self._worker_id, push, body)

    def _take_snapshot(self, snapshot: learner_pb2.Snapshot) -> None:
        self._give_up_snapshot()
        with self._runtime.locked() as core:
            wanted = core.wants_snapshot(self._worker_id, snapshot)
        if not wanted:
            return
        ref = SnapshotRef(snapshot.lane, snapshot.seq, snapshot.sha256)
        try:
            receiver = self._snapshots.receive(ref, snapshot.transfer, snapshot.bytes)
        except OSError as error:
            self._report_loss(error)
            return
        self._snapshot = _OpenSnapshot(snapshot.transfer, snapshot.incarnation, receiver)

    def _take_chunk(self, chunk: Chunk) -> None:
        if self._push is not None and self._push.is_continued_by(chunk):
            self._extend_push(self._push, chunk)
        elif self._snapshot is not None and chunk.transfer == self._snapshot.transfer:
            self._extend_snapshot(self._snapshot, chunk)

    def _extend_push(self, pending: IncomingPush, chunk: Chunk) -> None:
        received = pending.add(chunk)
        if received is None:
            return
        self._push = None
        if isinstance(received, codec.CodecError):
            body = Body(error=received)
        else:
            body = Body.read(received, None, self._schema)
        self._finish_push(pending.push, body)

    def _extend_snapshot(self, pending: _OpenSnapshot, chunk: Chunk) -> None:
        try:
            pending.receiver.add(chunk)
            if not pending.receiver.complete:
                return
            pending.receiver.commit()
        except (codec.CodecError, CorruptSnapshotError, FencedError, OSError) as error:
            self._give_up_snapshot()
            self._report_loss(error)
            return
        self._snapshot = None
        with self._runtime.locked() as core:
            core.run.problems.pop(_PROBLEM, None)
            kept = core.snapshot_stored(self._worker_id, pending.incarnation, pending.receiver.ref)
        if not kept:
            self._snapshots.remove(pending.receiver.ref.lane, pending.receiver.ref.seq)

    def _report_loss(self, error: Exception) -> None:
        with self._runtime.locked() as core:
            core.run.events.add("warning", "snapshot_lost", f"{self._worker_id}: {error}")
            if isinstance(error, OSError):
                core.run.problems[_PROBLEM] = f"could not be written: {error}"

    def _give_up_snapshot(self) -> None:
        if self._snapshot is not None:
            self._snapshot.receiver.abort()
            self._snapshot = None
