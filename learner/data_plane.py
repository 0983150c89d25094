"""The gRPC service that workers speak to: it decodes, calls, and encodes; what happens is the core's."""
# ruff: noqa: N802  # gRPC names the methods

import hmac
import zlib
from collections.abc import Iterator
from typing import Any

import grpc

from learner.admission import PROTOCOL, JoinRefusedError, TooManyWorkersError
from learner.core import LearnerCore
from learner.errors import CorruptSnapshotError
from learner.inbound import Inbound
from learner.runtime import Runtime
from learner.sessions import WorkerSession
from learner.snapshots import SnapshotStore
from protos import codec
from protos.rpc.denials import DenialReason
from protos.rpc.session_stream import SESSION_METADATA, SessionStreams
from protos.unspool.v1 import learner_pb2, learner_pb2_grpc
from protos.unspool.v1.common_pb2 import Chunk, Schema


class LearnerServicer(learner_pb2_grpc.LearnerServicer):
    """Serves `unspool.v1.Learner`."""

    def __init__(self, runtime: Runtime, schema: Schema, snapshots: SnapshotStore) -> None:
        self._runtime = runtime
        self._schema = schema
        self._snapshots = snapshots
        self._streams = SessionStreams()

    def Join(self, request: learner_pb2.JoinRequest, context: Any) -> learner_pb2.JoinReply:
        """Introduce a worker."""
        try:
            with self._runtime.locked() as core:
                return self._welcome(core, core.join(request))
        except JoinRefusedError as error:
            full = isinstance(error, TooManyWorkersError)
            code = grpc.StatusCode.RESOURCE_EXHAUSTED if full else grpc.StatusCode.FAILED_PRECONDITION
            context.abort(code, str(error))
            raise

    def Session(
        self, request_iterator: Iterator[learner_pb2.WorkerMessage], context: Any
    ) -> Iterator[learner_pb2.LearnerMessage]:
        """Carry one worker's conversation."""
        worker_id = self._worker_of(context)
        attached = self._runtime.attach(worker_id) if worker_id else None
        if worker_id is None or attached is None:
            self._count_stranger(context)
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, "no such session; Join afresh")
            return
        stream, mailbox = attached
        inbound = Inbound(self._runtime, worker_id, self._schema, self._snapshots)
        try:
            yield from self._streams.carry(
                f"session-{worker_id}", request_iterator, inbound, mailbox, context
            )
        finally:
            self._runtime.detach(worker_id, stream, mailbox)

    def GetTheta(self, request: learner_pb2.GetThetaRequest, context: Any) -> Iterator[Chunk]:
        """Send a published theta."""
        with self._runtime.locked() as core:
            published, newest = core.run.ring.get(request.version), core.run.version
        if published is None:
            context.abort(
                grpc.StatusCode.NOT_FOUND, f"theta {request.version} is not kept; the newest is {newest}"
            )
            return
        yield from codec.chunks(published.body, request.version, self._chunk_bytes())

    def GetSnapshot(self, request: learner_pb2.GetSnapshotRequest, context: Any) -> Iterator[Chunk]:
        """Send a lane's state as a worker once sent it."""
        with self._runtime.locked() as core:
            lanes = core.run.lanes
            ref = lanes[request.lane].snapshots.get(request.seq) if request.lane < len(lanes) else None
        if ref is None:
            context.abort(
                grpc.StatusCode.NOT_FOUND, f"lane {request.lane} has no snapshot at seq {request.seq}"
            )
            return
        try:
            offset = 0
            for piece in self._snapshots.read(ref, self._chunk_bytes()):
                yield Chunk(transfer=request.seq, offset=offset, data=piece, crc32=zlib.crc32(piece))
                offset += len(piece)
        except CorruptSnapshotError as error:
            with self._runtime.locked() as core:
                core.snapshot_corrupt(ref, str(error))
            context.abort(grpc.StatusCode.DATA_LOSS, str(error))

    def Leave(self, request: learner_pb2.LeaveRequest, context: Any) -> learner_pb2.LeaveReply:
        """Let a worker go."""
        with self._runtime.locked() as core:
            core.leave(request.worker_id, request.reason, is_unfit=request.unfit)
        return learner_pb2.LeaveReply()

    def join_readers(self) -> None:
        """Wait for the reading threads, once the server has ended their streams."""
        self._streams.join_readers()

    def _welcome(self, core: LearnerCore, session: WorkerSession) -> learner_pb2.JoinReply:
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

    def _worker_of(self, context: Any) -> str | None:
        secret = dict(context.invocation_metadata()).get(SESSION_METADATA, "").encode()
        found = None
        with self._runtime.locked() as core:
            for session in core.run.sessions:
                if hmac.compare_digest(session.secret.encode(), secret):
                    found = session.worker_id
        return found

    def _count_stranger(self, context: Any) -> None:
        with self._runtime.locked() as core:
            core.run.refusals.add(DenialReason.NO_SESSION, f"a stream of {context.peer()} without a Join")

    def _chunk_bytes(self) -> int:
        with self._runtime.locked() as core:
            return core.run.settings.chunk_bytes
