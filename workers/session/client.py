"""A worker's client of its learner: one method per call, and two kinds of error."""

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import grpc

from protos import codec
from protos.exit_codes import RefusedError
from protos.rpc.channels import open_channel
from protos.rpc.connection import SESSION_METADATA
from protos.rpc.tls import Identity, TlsError, handshake_problem
from protos.unspool.v1 import common_pb2, learner_pb2, learner_pb2_grpc

_JOIN_S = 30.0
_LEAVE_S = 10.0
_TRANSFER_S = 60.0
_TRANSFER_BYTES_PER_S = 1e6

_RECONNECTION = (
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.min_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 2_000),
)

_REFUSALS = frozenset(
    {
        grpc.StatusCode.UNAUTHENTICATED,
        grpc.StatusCode.PERMISSION_DENIED,
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.FAILED_PRECONDITION,
        grpc.StatusCode.NOT_FOUND,
        grpc.StatusCode.ALREADY_EXISTS,
        grpc.StatusCode.OUT_OF_RANGE,
        grpc.StatusCode.UNIMPLEMENTED,
        grpc.StatusCode.DATA_LOSS,
    }
)
"""Codes that a retry would get again. A full learner, which may have room later, uses another code."""


class UnavailableError(Exception):
    """The learner was unreachable or could not answer; try again later."""


class LearnerStream:
    """The receiving side of a session's stream.

    Iteration raises `RefusedError` or `UnavailableError` when the stream breaks.
    """

    def __init__(
        self, call: Any, typed_errors: Callable[[], contextlib.AbstractContextManager[None]]
    ) -> None:
        self._call = call
        self._typed_errors = typed_errors

    def __iter__(self) -> Iterator[learner_pb2.LearnerMessage]:
        """Yield the learner's messages until it closes the stream."""
        with self._typed_errors():
            yield from self._call

    def cancel(self) -> None:
        """Break the stream; its iterator raises `UnavailableError`."""
        self._call.cancel()


class LearnerClient:
    """A worker's calls to its learner, through a channel that connects at the first call and reconnects.

    Every method may raise `RefusedError` and `UnavailableError`.
    """

    def __init__(self, address: str, token: str, identity: Identity | None = None) -> None:
        """Prepare a channel whose calls carry the run's token for workers.

        Args:
            address: "host:port" of the learner's data plane.
            token: the secret.
            identity: TLS files of this worker; None: the connection is not encrypted.

        Raises:
            TlsError: a file of `identity` is unusable.
        """
        self._address = address
        self._identity = identity
        self._metadata = (("authorization", f"Bearer {token}"),)
        self._has_joined = False
        self._open_channel()

    def join(self, request: learner_pb2.JoinRequest) -> learner_pb2.JoinReply:
        """Ask the learner to admit this worker."""
        self._take_over_renewed_files()
        try:
            with self._typed_errors():
                reply: learner_pb2.JoinReply = self._stub.Join(
                    request,
                    timeout=_JOIN_S,
                    metadata=self._metadata,
                    # With TLS, waiting would hide a handshake that cannot succeed until the deadline.
                    wait_for_ready=self._identity is None,
                )
        except UnavailableError as error:
            self._explain(error)
            raise
        self._has_joined = True
        return reply

    def open_session(
        self, session_secret: str, outgoing: Iterable[learner_pb2.WorkerMessage]
    ) -> LearnerStream:
        """Open the stream, which sends `outgoing` until either of them ends.

        `outgoing` may block when there is nothing to send: a thread of the client reads it.
        """
        metadata = (*self._metadata, (SESSION_METADATA, session_secret))
        with self._typed_errors():
            call = self._stub.Session(iter(outgoing), metadata=metadata, wait_for_ready=True)
        return LearnerStream(call, self._typed_errors)

    def get_theta(self, outer_step: int, size: int) -> codec.Buffer:
        """Fetch the body of a published theta, of exactly `size` bytes."""
        request = learner_pb2.GetThetaRequest(outer_step=outer_step)
        with self._typed_errors():
            chunks = self._stub.GetTheta(request, timeout=_transfer_s(size), metadata=self._metadata)
            return _assemble(chunks, size)

    def get_snapshot(self, lane: int, seq: int, max_bytes: int) -> codec.Buffer:
        """Fetch the bytes of a lane's snapshot, at most `max_bytes` of them."""
        request = learner_pb2.GetSnapshotRequest(lane=lane, seq=seq)
        with self._typed_errors():
            chunks = self._stub.GetSnapshot(request, timeout=_transfer_s(max_bytes), metadata=self._metadata)
            return _assemble_up_to(chunks, max_bytes)

    def leave(self, session_id: str, reason: str, *, is_unfit: bool = False) -> None:
        """Report that this worker has returned its lanes and leaves, perhaps as unfit for the run."""
        request = learner_pb2.LeaveRequest(session_id=session_id, reason=reason, unfit=is_unfit)
        with self._typed_errors():
            self._stub.Leave(request, timeout=_LEAVE_S, metadata=self._metadata)

    def close(self) -> None:
        """Abort every call in progress; later calls raise `UnavailableError`."""
        self._channel.close()

    def _open_channel(self) -> None:
        if self._identity is not None:
            self._revision = self._identity.revision()
        self._channel = open_channel(self._address, self._identity, _RECONNECTION)
        self._stub = learner_pb2_grpc.LearnerStub(self._channel)

    def _take_over_renewed_files(self) -> None:
        """Open a new channel if the certificate files were replaced: a channel never rereads its files."""
        if self._identity is None or self._identity.revision() == self._revision:
            return
        before = self._channel
        try:
            self._open_channel()
        except TlsError as error:
            raise UnavailableError(str(error)) from error  # half written: complete at the next attempt
        before.close()

    def _explain(self, error: Exception) -> None:
        """Raise an error that explains the TLS failure, if there is one.

        A worker that has never joined is refused, because a retry would not help. One that has joined before
        retries, because its certificates may be renewed.
        """
        problem = handshake_problem(self._address, self._identity)
        if problem:
            kind = UnavailableError if self._has_joined else RefusedError
            raise kind(f"{self._address}: {problem}") from error

    @contextlib.contextmanager
    def _typed_errors(self) -> Iterator[None]:
        try:
            yield
        except grpc.RpcError as error:
            text = f"{self._address}: {error.code().name}: {error.details()}"
            raise (RefusedError(text) if error.code() in _REFUSALS else UnavailableError(text)) from error
        except codec.CodecError as error:
            raise UnavailableError(f"{self._address}: {error}") from error
        except ValueError as error:
            # grpc raises ValueError for a call on a channel that has been closed.
            raise UnavailableError(f"{self._address}: {error}") from error


def _transfer_s(size: int) -> float:
    return _TRANSFER_S + size / _TRANSFER_BYTES_PER_S


def _assemble(chunks: Iterable[common_pb2.Chunk], size: int) -> codec.Buffer:
    assembler: codec.Assembler | None = None
    for chunk in chunks:
        if assembler is None:
            assembler = codec.Assembler(chunk.transfer, size)
        assembler.add(chunk)
    return assembler.body() if assembler is not None else b""


def _assemble_up_to(chunks: Iterable[common_pb2.Chunk], max_bytes: int) -> codec.Buffer:
    body = bytearray()
    for chunk in chunks:
        codec.check_chunk(chunk, chunk.transfer, len(body), max_bytes)
        body += chunk.data
    return body
