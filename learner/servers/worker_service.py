"""The workers' gRPC service: translates their calls and messages to calls of the core."""

import dataclasses
import zlib
from collections.abc import Callable, Iterator
from typing import Any, Final

import grpc

from learner.coordination.core import LearnerCore
from learner.coordination.pushes import Body
from learner.errors import CorruptSnapshotError
from learner.storage.snapshots import SnapshotReceiver, SnapshotRef, SnapshotStore
from protos import codec
from protos.exit_codes import FencedError
from protos.rpc.send_queue import SendQueue
from protos.rpc.session_host import CallFailedError, IncomingSnapshot, SessionHost
from protos.unspool.v1 import learner_pb2
from protos.unspool.v1.common_pb2 import Chunk

_VERBS: Final[dict[str, Callable[[LearnerCore, str, Any], None]]] = {
    "heartbeat": LearnerCore.heartbeat,
    "lane_return": LearnerCore.return_lane,
    "lane_failure": LearnerCore.lane_failed,
    "stack": LearnerCore.stack,
    "log": LearnerCore.log,
}


class LearnerHost(SessionHost):
    """Serves workers with the core, and snapshots from disk."""

    def __init__(self, core: LearnerCore, snapshots: SnapshotStore) -> None:
        self._core = core
        self._snapshots = snapshots

    def join(self, request: learner_pb2.JoinRequest) -> learner_pb2.JoinReply:
        return self._core.join(request)

    def attach(self, secret: str, peer: str) -> tuple[str, SendQueue] | None:
        return self._core.attach(secret, peer)

    def detach(self, session_id: str, queue: SendQueue) -> None:
        self._core.detach(session_id, queue)

    def theta(self, outer_step: int) -> Iterator[Chunk]:
        try:
            published = self._core.theta(outer_step)
        except KeyError as error:
            raise CallFailedError(grpc.StatusCode.NOT_FOUND, str(error.args[0])) from error
        yield from codec.chunks(published.body, outer_step, self._core.settings.chunk_bytes)

    def snapshot(self, lane: int, seq: int) -> Iterator[Chunk]:
        ref = self._core.snapshot(lane, seq)
        if ref is None:
            raise CallFailedError(grpc.StatusCode.NOT_FOUND, f"lane {lane} has no snapshot at seq {seq}")
        try:
            offset = 0
            for piece in self._snapshots.read(ref, self._core.settings.chunk_bytes):
                yield Chunk(transfer=seq, offset=offset, data=piece, crc32=zlib.crc32(piece))
                offset += len(piece)
        except CorruptSnapshotError as error:
            self._core.snapshot_corrupt(ref, str(error))
            raise CallFailedError(grpc.StatusCode.DATA_LOSS, str(error)) from error

    def leave(self, request: learner_pb2.LeaveRequest) -> None:
        self._core.leave(request.session_id, request.reason, is_unfit=request.unfit)

    def body_bytes(self) -> int:
        return codec.body_bytes(self._core.schema)

    def wants_body(self, session_id: str, push: learner_pb2.GradientEstimatorOut) -> bool:
        return self._core.pushes.announce(session_id, push)

    def push(
        self, session_id: str, push: learner_pb2.GradientEstimatorOut, body: codec.Buffer | codec.CodecError
    ) -> None:
        self._core.pushes.receive(session_id, push, Body.read(push, body, self._core.schema))

    def receive_snapshot(self, session_id: str, snapshot: learner_pb2.Snapshot) -> IncomingSnapshot | None:
        if not self._core.wants_snapshot(session_id, snapshot):
            return None
        ref = SnapshotRef(snapshot.lane, snapshot.seq, snapshot.sha256)
        try:
            receiver = self._snapshots.receive(ref, snapshot.transfer, snapshot.bytes)
        except OSError as error:
            self._core.snapshot_lost(session_id, error)
            return None
        return _SnapshotToDisk(self._core, self._snapshots, session_id, snapshot.fencing_token, receiver)

    def message(self, session_id: str, kind: str, message: Any) -> None:
        _VERBS[kind](self._core, session_id, message)


@dataclasses.dataclass
class _SnapshotToDisk(IncomingSnapshot):
    """Writes chunks straight to a temporary file, so memory use does not depend on a snapshot's size."""

    core: LearnerCore
    snapshots: SnapshotStore
    session_id: str
    fencing_token: int
    receiver: SnapshotReceiver

    def add(self, chunk: Chunk) -> bool:
        try:
            self.receiver.add(chunk)
            if not self.receiver.complete:
                return False
            self.receiver.commit()
        except (codec.CodecError, CorruptSnapshotError, FencedError, OSError) as error:
            self.receiver.abort()
            self.core.snapshot_lost(self.session_id, error)
            return True
        ref = self.receiver.ref
        if not self.core.snapshot_stored(self.session_id, self.fencing_token, ref):
            self.snapshots.remove(ref.lane, ref.seq)  # its lease has ended in between
        return True

    def abort(self) -> None:
        self.receiver.abort()
