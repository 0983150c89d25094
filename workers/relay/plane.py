"""The gRPC service that a relay offers to its workers: the learner's own, `unspool.v1.Learner`."""
# ruff: noqa: N802  # gRPC names the methods

from collections.abc import Iterator
from typing import Any

import grpc

from protos import codec
from protos.exit_codes import RefusedError
from protos.rpc.session_stream import SESSION_METADATA, SessionStreams
from protos.unspool.v1 import learner_pb2, learner_pb2_grpc
from protos.unspool.v1.common_pb2 import Chunk
from workers.client import LearnerClient, UnavailableError
from workers.relay.core import RelayCore, RelayRefusalError
from workers.relay.inbound import MAX_SNAPSHOT_BYTES, RelayInbound
from workers.relay.thetas import RelayThetas


class RelayServicer(learner_pb2_grpc.LearnerServicer):
    """Serves `unspool.v1.Learner` from what the relay knows, and asks the learner for the rest."""

    def __init__(self, core: RelayCore, client: LearnerClient) -> None:
        """Tell `core` what workers do; fetch thetas and snapshots through `client`."""
        self._core = core
        self._client = client
        self._thetas = RelayThetas(self._fetch_theta)
        self._streams = SessionStreams()

    def Join(self, request: learner_pb2.JoinRequest, context: Any) -> learner_pb2.JoinReply:
        """Introduce a worker."""
        try:
            return self._core.join(request)
        except RelayRefusalError as error:
            code = grpc.StatusCode.UNAVAILABLE if error.is_passing else grpc.StatusCode.FAILED_PRECONDITION
            context.abort(code, str(error))
            raise

    def Session(
        self, request_iterator: Iterator[learner_pb2.WorkerMessage], context: Any
    ) -> Iterator[learner_pb2.LearnerMessage]:
        """Carry one worker's conversation."""
        secret = str(dict(context.invocation_metadata()).get(SESSION_METADATA, ""))
        attached = self._core.attach(secret)
        if attached is None:
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, "no such session; Join afresh")
            return
        worker_id, stream = attached
        inbound = RelayInbound(self._core, worker_id)
        try:
            yield from self._streams.carry("relay-session", request_iterator, inbound, stream, context)
        finally:
            self._core.detach(worker_id, stream)

    def GetTheta(self, request: learner_pb2.GetThetaRequest, context: Any) -> Iterator[Chunk]:
        """Send a published theta from the one buffer that there is of it."""
        try:
            body = self._thetas.get(self._core.reply.epoch, request.version)
        except (RefusedError, UnavailableError) as error:
            _abort(context, error)
            return
        yield from codec.chunks(body, request.version, self._core.reply.chunk_bytes)

    def GetSnapshot(self, request: learner_pb2.GetSnapshotRequest, context: Any) -> Iterator[Chunk]:
        """Send a lane's state as the learner has it."""
        try:
            body = self._client.get_snapshot(request.lane, request.seq, MAX_SNAPSHOT_BYTES)
        except (RefusedError, UnavailableError) as error:
            _abort(context, error)
            return
        yield from codec.chunks(body, request.seq, self._core.reply.chunk_bytes)

    def Leave(self, request: learner_pb2.LeaveRequest, context: Any) -> learner_pb2.LeaveReply:
        """Let a worker go."""
        self._core.leave(request.worker_id, request.reason, is_unfit=request.unfit)
        return learner_pb2.LeaveReply()

    def join_readers(self) -> None:
        """Wait for the reading threads, once the server has ended their streams."""
        self._streams.join_readers()

    def _fetch_theta(self, version: int) -> codec.Buffer:
        return self._client.get_theta(version, codec.body_bytes(self._core.reply.schema))


def _abort(context: Any, error: RefusedError | UnavailableError) -> None:
    is_final = isinstance(error, RefusedError)
    context.abort(grpc.StatusCode.NOT_FOUND if is_final else grpc.StatusCode.UNAVAILABLE, str(error))
