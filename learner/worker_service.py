"""The learner as workers connect to it: their calls and messages become calls to the core."""

import zlib
from collections.abc import Callable, Iterator
from typing import Any, Final

import grpc

from learner.admission import Body
from learner.core import LearnerCore
from learner.errors import CorruptSnapshotError
from learner.runtime import Runtime
from learner.sessions import WorkerSession
from learner.snapshots import SnapshotReceiver, SnapshotRef, SnapshotStore
from protos import codec
from protos.exit_codes import FencedError
from protos.rpc.connection import PROTOCOL
from protos.rpc.denials import DenialReason
from protos.rpc.session_service import CallFailedError, OpenStream, SessionHost
from protos.rpc.stream_reader import IncomingSnapshot, SessionEvents
from protos.unspool.v1 import learner_pb2
from protos.unspool.v1.common_pb2 import Chunk, Schema

_PROBLEM: Final = "snapshots"
_VERBS: Final[dict[str, Callable[[LearnerCore, str, Any], None]]] = {
    "heartbeat": LearnerCore.heartbeat,
    "lane_return": LearnerCore.return_lane,
    "lane_failure": LearnerCore.lane_failed,
    "stack": LearnerCore.stack,
    "log": LearnerCore.log,
}


class LearnerHost(SessionHost):
    """Serves workers from the core, and their snapshots from disk."""

    def __init__(self, runtime: Runtime, schema: Schema, snapshots: SnapshotStore) -> None:
        self._runtime = runtime
        self._schema = schema
        self._snapshots = snapshots

    def join(self, request: learner_pb2.JoinRequest) -> learner_pb2.JoinReply:
        with self._runtime.locked() as core:
            return self._reply(core, core.join(request))

    def open_stream(self, secret: str, peer: str) -> OpenStream | None:
        with self._runtime.locked() as core:
            session = core.run.sessions.with_secret(secret)
        attached = self._runtime.attach(session.worker_id) if session else None
        if session is None or attached is None:
            with self._runtime.locked() as core:
                core.run.refusals.add(DenialReason.NO_SESSION, f"a stream of {peer} without a Join")
            return None
        number, queue = attached
        events = LearnerSessionEvents(self._runtime, session.worker_id, self._schema, self._snapshots)
        return OpenStream(f"session-{session.worker_id}", events, queue, (session.worker_id, number))

    def close_stream(self, stream: OpenStream) -> None:
        worker_id, number = stream.token
        self._runtime.detach(worker_id, number, stream.queue)

    def theta(self, version: int) -> Iterator[Chunk]:
        with self._runtime.locked() as core:
            published, newest = core.run.ring.get(version), core.run.version
            chunk_bytes = core.run.settings.chunk_bytes
        if published is None:
            text = f"theta {version} is not kept; the newest is {newest}"
            raise CallFailedError(grpc.StatusCode.NOT_FOUND, text)
        yield from codec.chunks(published.body, version, chunk_bytes)

    def snapshot(self, lane: int, seq: int) -> Iterator[Chunk]:
        with self._runtime.locked() as core:
            lanes, chunk_bytes = core.run.lanes, core.run.settings.chunk_bytes
            ref = lanes[lane].snapshots.get(seq) if lane < len(lanes) else None
        if ref is None:
            raise CallFailedError(grpc.StatusCode.NOT_FOUND, f"lane {lane} has no snapshot at seq {seq}")
        try:
            offset = 0
            for piece in self._snapshots.read(ref, chunk_bytes):
                yield Chunk(transfer=seq, offset=offset, data=piece, crc32=zlib.crc32(piece))
                offset += len(piece)
        except CorruptSnapshotError as error:
            with self._runtime.locked() as core:
                core.snapshot_corrupt(ref, str(error))
            raise CallFailedError(grpc.StatusCode.DATA_LOSS, str(error)) from error

    def leave(self, request: learner_pb2.LeaveRequest) -> None:
        with self._runtime.locked() as core:
            core.leave(request.worker_id, request.reason, is_unfit=request.unfit)

    def _reply(self, core: LearnerCore, session: WorkerSession) -> learner_pb2.JoinReply:
        run, settings = core.run, core.run.settings
        return learner_pb2.JoinReply(
            protocol=PROTOCOL,
            run_id=settings.run_id,
            epoch=run.epoch,
            worker_id=session.worker_id,
            session_secret=session.secret,
            heartbeat_s=settings.liveness.heartbeat_s,
            orphan_ttl_s=settings.liveness.orphan_ttl_s,
            chunk_bytes=settings.chunk_bytes,
            schema=self._schema,
            experiment_toml=settings.experiment_toml,
            config_sha256=settings.config_sha256,
            version=run.version,
            lanes_total=len(run.lanes),
            snapshot_every=settings.checkpoint.every,
            exact_versions=run.aggregation.exact_versions,
            merges=run.merges,
            lease_ttl_s=settings.liveness.lease_ttl_s,
        )


class LearnerSessionEvents(SessionEvents):
    """The messages of one session, as calls to the core under its lock."""

    def __init__(self, runtime: Runtime, worker_id: str, schema: Schema, snapshots: SnapshotStore) -> None:
        self._runtime = runtime
        self._worker_id = worker_id
        self._schema = schema
        self._snapshots = snapshots
        self._body_bytes = codec.body_bytes(schema)

    @property
    def body_bytes(self) -> int:
        return self._body_bytes

    def wants_body(self, push: learner_pb2.GradientEstimatorOut) -> bool:
        with self._runtime.locked() as core:
            return not core.refuse_unread(self._worker_id, push)

    def push(self, push: learner_pb2.GradientEstimatorOut, body: codec.Buffer | codec.CodecError) -> None:
        read = Body.received(push, body, self._schema)  # before the lock: a large gradient takes its time
        with self._runtime.locked() as core:
            core.push(self._worker_id, push, read)

    def receive_snapshot(self, snapshot: learner_pb2.Snapshot) -> IncomingSnapshot | None:
        with self._runtime.locked() as core:
            wanted = core.wants_snapshot(self._worker_id, snapshot)
        if not wanted:
            return None
        ref = SnapshotRef(snapshot.lane, snapshot.seq, snapshot.sha256)
        try:
            receiver = self._snapshots.receive(ref, snapshot.transfer, snapshot.bytes)
        except OSError as error:
            self.snapshot_lost(error)
            return None
        return _SnapshotToDisk(self, snapshot.incarnation, receiver)

    def message(self, kind: str, message: Any) -> None:
        with self._runtime.locked() as core:
            _VERBS[kind](core, self._worker_id, message)

    def snapshot_stored(self, incarnation: int, ref: SnapshotRef) -> None:
        """Tell the core of a snapshot that is on disk; one that it does not want any more is removed."""
        with self._runtime.locked() as core:
            core.run.problems.pop(_PROBLEM, None)
            kept = core.snapshot_stored(self._worker_id, incarnation, ref)
        if not kept:
            self._snapshots.remove(ref.lane, ref.seq)

    def snapshot_lost(self, error: Exception) -> None:
        """Record why a snapshot could not be kept."""
        with self._runtime.locked() as core:
            core.run.events.add("warning", "snapshot_lost", f"{self._worker_id}: {error}")
            if isinstance(error, OSError):
                core.run.problems[_PROBLEM] = f"could not be written: {error}"


class _SnapshotToDisk(IncomingSnapshot):
    """Chunks go straight to a temporary file, so memory does not grow with a snapshot's size."""

    def __init__(self, events: LearnerSessionEvents, incarnation: int, receiver: SnapshotReceiver) -> None:
        self._events = events
        self._incarnation = incarnation
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
        self._events.snapshot_stored(self._incarnation, self._receiver.ref)
        return True

    def abort(self) -> None:
        self._receiver.abort()
