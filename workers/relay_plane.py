"""The gRPC service that a relay offers to its workers: the learner's own, `unspool.v1.Learner`."""
# ruff: noqa: N802  # gRPC names the methods

import threading
from collections.abc import Iterator
from typing import Any

import grpc

from protos import codec
from protos.mailbox import Mailbox
from protos.unspool.v1 import learner_pb2, learner_pb2_grpc
from protos.unspool.v1.common_pb2 import Chunk
from workers.client import LearnerClient, RefusedError, UnavailableError
from workers.relay_core import RelayCore, RelayRefusalError
from workers.relay_inbound import MAX_SNAPSHOT_BYTES, RelayInbound
from workers.relay_thetas import RelayThetas

_SESSION_METADATA = "unspool-session"
_JOIN_READERS_S = 5.0


class RelayServicer(learner_pb2_grpc.LearnerServicer):
    """A stream has two threads, as at the learner: the pool's writes, one of its own reads."""

    def __init__(self, core: RelayCore, client: LearnerClient) -> None:
        """Tell `core` what workers do; fetch thetas and snapshots through `client`."""
        self._core = core
        self._client = client
        self._thetas = RelayThetas(self._fetch_theta)
        self._readers: set[threading.Thread] = set()
        self._readers_lock = threading.Lock()

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
        secret = str(dict(context.invocation_metadata()).get(_SESSION_METADATA, ""))
        attached = self._core.attach(secret)
        if attached is None:
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, "no such session; Join afresh")
            return
        worker_id, stream = attached
        if not context.add_callback(stream.close):
            stream.close()  # the call ended before it began
        self._start_reader(request_iterator, RelayInbound(self._core, worker_id), stream)
        try:
            yield from stream
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
        with self._readers_lock:
            readers = list(self._readers)
        for reader in readers:
            reader.join(_JOIN_READERS_S)

    def _fetch_theta(self, version: int) -> codec.Buffer:
        return self._client.get_theta(version, codec.body_bytes(self._core.reply.schema))

    def _start_reader(
        self, messages: Iterator[learner_pb2.WorkerMessage], inbound: RelayInbound, stream: Mailbox
    ) -> None:
        reader = threading.Thread(
            target=self._read, args=(messages, inbound, stream), name="relay-session", daemon=True
        )
        with self._readers_lock:
            self._readers.add(reader)
        reader.start()

    def _read(
        self, messages: Iterator[learner_pb2.WorkerMessage], inbound: RelayInbound, stream: Mailbox
    ) -> None:
        try:
            for message in messages:
                inbound.take(message)
        except grpc.RpcError:
            pass  # the stream broke: what follows is the same as when it ends
        finally:
            stream.close()
            with self._readers_lock:
                self._readers.discard(threading.current_thread())


def _abort(context: Any, error: RefusedError | UnavailableError) -> None:
    is_final = isinstance(error, RefusedError)
    context.abort(grpc.StatusCode.NOT_FOUND if is_final else grpc.StatusCode.UNAVAILABLE, str(error))
