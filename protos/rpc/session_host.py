"""The behaviour of learners and relays towards workers, and the errors of their calls."""

import abc
import re
from collections.abc import Iterator
from typing import Any, Final

import grpc

from protos import codec
from protos.rpc.connection import PROTOCOL
from protos.rpc.denials import DenialReason
from protos.rpc.send_queue import SendQueue
from protos.unspool.v1 import learner_pb2
from protos.unspool.v1.common_pb2 import Chunk

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


class IncomingSnapshot(abc.ABC):
    """A snapshot that is being received."""

    @abc.abstractmethod
    def add(self, chunk: Chunk) -> bool:
        """Append the next chunk; return True if the snapshot is complete or has failed."""

    @abc.abstractmethod
    def abort(self) -> None:
        """Discard the received data."""


class SessionHost(abc.ABC):
    """A learner or relay, as its gRPC server sees it. The server's threads call its methods.

    The handlers of a session's messages must not raise on any message.
    """

    # Calls.

    @abc.abstractmethod
    def join(self, request: learner_pb2.JoinRequest) -> learner_pb2.JoinReply:
        """Admit a worker.

        Raises:
            CallFailedError: the worker may not join.
        """

    @abc.abstractmethod
    def attach(self, secret: str, peer: str) -> tuple[str, SendQueue] | None:
        """Open the stream of the session with `secret`.

        Returns:
            The session's id and the messages to its worker; None if no session has this secret.
        """

    @abc.abstractmethod
    def detach(self, session_id: str, queue: SendQueue) -> None:
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

    # Messages of a session.

    @abc.abstractmethod
    def body_bytes(self) -> int:
        """Return the size of a gradient in bytes, by the schema."""

    @abc.abstractmethod
    def wants_body(self, session_id: str, push: learner_pb2.GradientEstimatorOut) -> bool:
        """Return whether to receive the body that follows `push`; if not, answer the push."""

    @abc.abstractmethod
    def push(
        self, session_id: str, push: learner_pb2.GradientEstimatorOut, body: codec.Buffer | codec.CodecError
    ) -> None:
        """Handle a push with its body, or with the error that prevented receiving the body."""

    @abc.abstractmethod
    def receive_snapshot(self, session_id: str, snapshot: learner_pb2.Snapshot) -> IncomingSnapshot | None:
        """Prepare to receive a snapshot; return None to ignore it."""

    @abc.abstractmethod
    def message(self, session_id: str, kind: str, message: Any) -> None:
        """Handle any other message; `kind` is the name of its field in `WorkerMessage`."""
