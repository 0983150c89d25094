"""The gRPC service `unspool.v1.Learner`, which learners and relays offer to workers."""
# ruff: noqa: N802  # gRPC determines the method names

import threading
from collections.abc import Iterator
from typing import Any, Final

import grpc

from protos.rpc.connection import SESSION_METADATA
from protos.rpc.send_queue import SendQueue
from protos.rpc.session_host import CallFailedError, SessionHost
from protos.rpc.stream_reader import StreamReader
from protos.unspool.v1 import learner_pb2, learner_pb2_grpc
from protos.unspool.v1.common_pb2 import Chunk

_JOIN_READERS_S: Final = 5.0


class SessionServicer(learner_pb2_grpc.LearnerServicer):
    """Serves `unspool.v1.Learner`. For each stream, a pool thread sends and an extra thread receives."""

    def __init__(self, host: SessionHost) -> None:
        self._host = host
        self._threads: set[threading.Thread] = set()
        self._lock = threading.Lock()

    def Join(self, request: learner_pb2.JoinRequest, context: Any) -> learner_pb2.JoinReply:
        """Admit a worker."""
        try:
            return self._host.join(request)
        except CallFailedError as error:
            context.abort(error.status, str(error))
            raise

    def Session(
        self, request_iterator: Iterator[learner_pb2.WorkerMessage], context: Any
    ) -> Iterator[learner_pb2.LearnerMessage]:
        """Transfer the messages of one session in both directions until either side ends the stream."""
        secret = str(dict(context.invocation_metadata()).get(SESSION_METADATA, ""))
        attached = self._host.attach(secret, context.peer())
        if attached is None:
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, "no such session; Join again")
            return
        session_id, queue = attached
        try:
            if not context.add_callback(queue.close):
                queue.close()  # the call has already been cancelled
            self._start_reading(session_id, queue, request_iterator)
            yield from queue
        finally:
            self._host.detach(session_id, queue)

    def GetTheta(self, request: learner_pb2.GetThetaRequest, context: Any) -> Iterator[Chunk]:
        """Send a published theta."""
        yield from _sent(self._host.theta(request.outer_step), context)

    def GetSnapshot(self, request: learner_pb2.GetSnapshotRequest, context: Any) -> Iterator[Chunk]:
        """Send a lane's snapshot as a worker sent it."""
        yield from _sent(self._host.snapshot(request.lane, request.seq), context)

    def Leave(self, request: learner_pb2.LeaveRequest, context: Any) -> learner_pb2.LeaveReply:
        """End a worker's session."""
        self._host.leave(request)
        return learner_pb2.LeaveReply()

    def join_readers(self) -> None:
        """Wait for the reading threads; call this after the server has ended their streams."""
        with self._lock:
            threads = list(self._threads)
        for thread in threads:
            thread.join(_JOIN_READERS_S)

    def _start_reading(
        self, session_id: str, queue: SendQueue, messages: Iterator[learner_pb2.WorkerMessage]
    ) -> None:
        thread = threading.Thread(
            target=self._read, args=(session_id, queue, messages), name=f"session-{session_id}", daemon=True
        )
        with self._lock:
            self._threads.add(thread)
        thread.start()

    def _read(self, session_id: str, queue: SendQueue, messages: Iterator[learner_pb2.WorkerMessage]) -> None:
        reader = StreamReader(self._host, session_id)
        try:
            for message in messages:
                reader.take(message)
        except grpc.RpcError:
            pass  # treat a broken stream like a closed one
        finally:
            reader.close()
            queue.close()
            with self._lock:
                self._threads.discard(threading.current_thread())


def _sent(chunks: Iterator[Chunk], context: Any) -> Iterator[Chunk]:
    try:
        yield from chunks
    except CallFailedError as error:
        context.abort(error.status, str(error))
