"""The gRPC service `unspool.v1.Learner`, which learners and relays offer to workers.

The servicer handles calls and streams; a `SessionHost` implements the behaviour.
"""
# ruff: noqa: N802  # gRPC determines the method names

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
    """Raised to abort a call with a gRPC status."""

    def __init__(self, status: grpc.StatusCode, text: str) -> None:
        super().__init__(text)
        self.status = status


class JoinDeniedError(CallFailedError):
    """Raised if a worker may not join."""

    def __init__(
        self,
        reason: DenialReason,
        text: str,
        status: grpc.StatusCode = grpc.StatusCode.FAILED_PRECONDITION,
    ) -> None:
        """Deny a join; the default `status` is permanent, others may ask the worker to retry."""
        super().__init__(status, text)
        self.reason = reason


def check_join(request: learner_pb2.JoinRequest, run_id: str, host: str) -> None:
    """Check the protocol, run and name in a Join request.

    Args:
        request: the request.
        run_id: the id of the run that is served.
        host: what serves it, "learner" or "relay", for the error message.

    Raises:
        JoinDeniedError: the protocol or run does not match, or the name is invalid.
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
    if not _NAME.fullmatch(request.worker_name) or not _NAME.fullmatch(request.process_uuid):
        raise JoinDeniedError(
            DenialReason.BAD_NAME,
            f"Join(worker_name={request.worker_name!r}, process_uuid={request.process_uuid!r}): each must be "
            "1 to 64 letters, digits, dots, dashes or underscores",
        )


class OpenStream(NamedTuple):
    """A session's stream.

    Attributes:
        name: the name of its reading thread.
        events: handles the worker's messages.
        queue: the messages to the worker.
        token: a value by which the host identifies the stream.
    """

    name: str
    events: SessionEvents
    queue: SendQueue
    token: Any = None


class SessionHost(abc.ABC):
    """The behaviour of a learner or relay towards workers. The server's threads call its methods."""

    @abc.abstractmethod
    def join(self, request: learner_pb2.JoinRequest) -> learner_pb2.JoinReply:
        """Admit a worker.

        Raises:
            CallFailedError: the worker may not join.
        """

    @abc.abstractmethod
    def open_stream(self, secret: str, peer: str) -> OpenStream | None:
        """Open the stream of the session with `secret`; return None if no session has it."""

    @abc.abstractmethod
    def close_stream(self, stream: OpenStream) -> None:
        """Close a stream that has ended."""

    @abc.abstractmethod
    def theta(self, outer_step: int) -> Iterator[Chunk]:
        """Yield a published theta as chunks.

        Raises:
            CallFailedError: this theta is not available.
        """

    @abc.abstractmethod
    def snapshot(self, lane: int, seq: int) -> Iterator[Chunk]:
        """Yield a lane's stored snapshot as chunks.

        Raises:
            CallFailedError: this snapshot is not available.
        """

    @abc.abstractmethod
    def leave(self, request: learner_pb2.LeaveRequest) -> None:
        """End a worker's session at the worker's request."""


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
        stream = self._host.open_stream(secret, context.peer())
        if stream is None:
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, "no such session; Join again")
            return
        try:
            if not context.add_callback(stream.queue.close):
                stream.queue.close()  # the call has already been cancelled
            self._start_reading(stream, request_iterator)
            yield from stream.queue
        finally:
            self._host.close_stream(stream)

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
            pass  # treat a broken stream like a closed one
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
