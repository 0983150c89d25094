"""The gRPC service `unspool.v1.Learner`, which learners and relays offer to workers.

The servicer decodes calls and carries streams; a `SessionHost` decides what happens.
"""
# ruff: noqa: N802  # gRPC names the methods

import abc
import re
import threading
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

import grpc

from protos.rpc.connection import PROTOCOL, SESSION_METADATA
from protos.rpc.denials import DenialReason
from protos.rpc.send_queue import SendQueue
from protos.rpc.stream_reader import SessionEvents, StreamReader
from protos.unspool.v1 import learner_pb2, learner_pb2_grpc
from protos.unspool.v1.common_pb2 import Chunk

_JOIN_READERS_S: Final = 5.0
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class CallFailedError(Exception):
    """A call that cannot be answered, with its gRPC status."""

    def __init__(self, status: grpc.StatusCode, text: str) -> None:
        super().__init__(text)
        self.status = status


class JoinDeniedError(CallFailedError):
    """A worker is not admitted."""

    def __init__(
        self,
        reason: DenialReason,
        text: str,
        status: grpc.StatusCode = grpc.StatusCode.FAILED_PRECONDITION,
    ) -> None:
        """Deny for good, or with another `status` for the moment."""
        super().__init__(status, text)
        self.reason = reason


def check_join(request: learner_pb2.JoinRequest, run_id: str, host: str) -> None:
    """Check that a worker fits what it joins, called `host` in the message.

    Raises:
        JoinDeniedError: another protocol, another run, or an impossible name.
    """
    if not request.protocol_min <= PROTOCOL <= request.protocol_max:
        raise JoinDeniedError(
            DenialReason.WRONG_PROTOCOL,
            f"this {host} speaks protocol {PROTOCOL}, the worker {request.protocol_min} to "
            f"{request.protocol_max}; install the same version of unspool on both",
        )
    if request.run_id not in ("", run_id):
        raise JoinDeniedError(
            DenialReason.WRONG_RUN,
            f"this {host} serves run {run_id!r}, the worker asked for {request.run_id!r}",
        )
    if not _NAME.fullmatch(request.worker_name) or not _NAME.fullmatch(request.incarnation):
        raise JoinDeniedError(
            DenialReason.BAD_NAME,
            f"Join(worker_name={request.worker_name!r}, incarnation={request.incarnation!r}): each must be "
            "1 to 64 letters, digits, dots, dashes or underscores",
        )


class OpenStream(NamedTuple):
    """A session's stream.

    Attributes:
        name: of its reading thread.
        events: receives what the worker sends.
        queue: holds what is sent to the worker.
        token: the host's own mark of this stream.
    """

    name: str
    events: SessionEvents
    queue: SendQueue
    token: Any = None


class SessionHost(abc.ABC):
    """What workers connect to: a learner or a relay. Its methods are called from the server's threads."""

    @abc.abstractmethod
    def join(self, request: learner_pb2.JoinRequest) -> learner_pb2.JoinReply:
        """Admit a worker.

        Raises:
            CallFailedError: it is not admitted.
        """

    @abc.abstractmethod
    def open_stream(self, secret: str, peer: str) -> OpenStream | None:
        """Open the stream of the session that `secret` belongs to; None if there is no such session."""

    @abc.abstractmethod
    def close_stream(self, stream: OpenStream) -> None:
        """Close a stream that has ended."""

    @abc.abstractmethod
    def theta(self, version: int) -> Iterator[Chunk]:
        """Yield a published theta.

        Raises:
            CallFailedError: it is not available.
        """

    @abc.abstractmethod
    def snapshot(self, lane: int, seq: int) -> Iterator[Chunk]:
        """Yield a lane's stored state.

        Raises:
            CallFailedError: it is not available.
        """

    @abc.abstractmethod
    def leave(self, request: learner_pb2.LeaveRequest) -> None:
        """End a worker's session at its own request."""


class SessionServicer(learner_pb2_grpc.LearnerServicer):
    """Serves `unspool.v1.Learner`. A stream has two threads: the pool's sends, one of its own receives."""

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
        """Carry the messages of one session in both directions until either side ends."""
        secret = str(dict(context.invocation_metadata()).get(SESSION_METADATA, ""))
        stream = self._host.open_stream(secret, context.peer())
        if stream is None:
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, "no such session; Join again")
            return
        try:
            if not context.add_callback(stream.queue.close):
                stream.queue.close()  # the call ended before it began
            self._start_reading(stream, request_iterator)
            yield from stream.queue
        finally:
            self._host.close_stream(stream)

    def GetTheta(self, request: learner_pb2.GetThetaRequest, context: Any) -> Iterator[Chunk]:
        """Send a published theta."""
        yield from _sent(self._host.theta(request.version), context)

    def GetSnapshot(self, request: learner_pb2.GetSnapshotRequest, context: Any) -> Iterator[Chunk]:
        """Send a lane's state as a worker once sent it."""
        yield from _sent(self._host.snapshot(request.lane, request.seq), context)

    def Leave(self, request: learner_pb2.LeaveRequest, context: Any) -> learner_pb2.LeaveReply:
        """End a worker's session."""
        self._host.leave(request)
        return learner_pb2.LeaveReply()

    def join_readers(self) -> None:
        """Wait for the reading threads, once the server has ended their streams."""
        with self._lock:
            threads = list(self._threads)
        for thread in threads:
            thread.join(_JOIN_READERS_S)

    def _start_reading(self, stream: OpenStream, messages: Iterator[learner_pb2.WorkerMessage]) -> None:
        thread = threading.Thread(target=self._read, args=(stream, messages), name=stream.name, daemon=True)
        with self._lock:
            self._threads.add(thread)
        thread.start()

    def _read(self, stream: OpenStream, messages: Iterator[learner_pb2.WorkerMessage]) -> None:
        reader = StreamReader(stream.events)
        try:
            for message in messages:
                reader.take(message)
        except grpc.RpcError:
            pass  # the stream broke, which is handled like its end
        finally:
            reader.close()
            stream.queue.close()
            with self._lock:
                self._threads.discard(threading.current_thread())


def _sent(chunks: Iterator[Chunk], context: Any) -> Iterator[Chunk]:
    try:
        yield from chunks
    except CallFailedError as error:
        context.abort(error.status, str(error))
