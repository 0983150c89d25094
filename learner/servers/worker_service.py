"""The workers' gRPC service: translates their calls and messages to calls of the core."""

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
from protos.rpc.session_service import CallFailedError, OpenStream, SessionHost
from protos.rpc.stream_reader import IncomingSnapshot, SessionEvents
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

    def open_stream(self, secret: str, peer: str) -> OpenStream | None:
        attached = self._core.attach(secret, peer)
        if attached is None:
            return None
        session_id, queue = attached
        events = LearnerSessionEvents(self._core, session_id, self._snapshots)
        return OpenStream(f"session-{session_id}", events, queue, session_id)

    def close_stream(self, stream: OpenStream) -> None:
        self._core.detach(stream.token, stream.queue)

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


class LearnerSessionEvents(SessionEvents):
    """The messages of one session, as calls to the core."""

    def __init__(self, core: LearnerCore, session_id: str, snapshots: SnapshotStore) -> None:
        self._core = core
        self._session_id = session_id
        self._snapshots = snapshots
        self._body_bytes = codec.body_bytes(core.schema)

    @property
    def body_bytes(self) -> int:
        return self._body_bytes

    def wants_body(self, push: learner_pb2.GradientEstimatorOut) -> bool:
        return self._core.announce_push(self._session_id, push)

    def push(self, push: learner_pb2.GradientEstimatorOut, body: codec.Buffer | codec.CodecError) -> None:
        self._core.push(self._session_id, push, Body.received(push, body, self._core.schema))

    def receive_snapshot(self, snapshot: learner_pb2.Snapshot) -> IncomingSnapshot | None:
        if not self._core.wants_snapshot(self._session_id, snapshot):
            return None
        ref = SnapshotRef(snapshot.lane, snapshot.seq, snapshot.sha256)
        try:
            receiver = self._snapshots.receive(ref, snapshot.transfer, snapshot.bytes)
        except OSError as error:
            self.snapshot_lost(error)
            return None
        return _SnapshotToDisk(self, snapshot.fencing_token, receiver)

    def message(self, kind: str, message: Any) -> None:
        _VERBS[kind](self._core, self._session_id, message)

    def snapshot_stored(self, fencing_token: int, ref: SnapshotRef) -> None:
        """Report a stored snapshot to the core; delete it if its lease has ended in between."""
        if not self._core.snapshot_stored(self._session_id, fencing_token, ref):
            self._snapshots.remove(ref.lane, ref.seq)

    def snapshot_lost(self, error: Exception) -> None:
        """Report to the core why a snapshot could not be stored."""
        self._core.snapshot_lost(self._session_id, error)


class _SnapshotToDisk(IncomingSnapshot):
    """Writes chunks straight to a temporary file, so memory use does not depend on a snapshot's size."""

    def __init__(self, events: LearnerSessionEvents, fencing_token: int, receiver: SnapshotReceiver) -> None:
        self._events = events
        self._fencing_token = fencing_token
        self._receiver = receiver

    def add(self, chunk: Chunk) -> bool:
        try:
            self._receiver.add(chunk)
            if not self._receiver.complete:
                return False
            self._receiver.commit()
        except (codec.CodecError, CorruptSnapshotError, FencedError, OSError) as error:
            self._receiver.abort()
            self._events.snapshot_lost(error)
            return True
        self._events.snapshot_stored(self._fencing_token, self._receiver.ref)
        return True

    def abort(self) -> None:
        self._receiver.abort()
