"""The relay's server side: forwards the workers' calls and messages to its core or to the learner."""

from collections.abc import Iterator
from typing import Any, Final

import grpc

from protos import codec
from protos.exit_codes import RefusedError
from protos.rpc.send_queue import SendQueue
from protos.rpc.session_host import CallFailedError, IncomingSnapshot, SessionHost
from protos.unspool.v1 import learner_pb2
from protos.unspool.v1.common_pb2 import Chunk
from workers.relay.core import RelayCore
from workers.relay.thetas import RelayThetas
from workers.session.client import LearnerClient, UnavailableError

MAX_SNAPSHOT_BYTES: Final = 1 << 30
"""Maximum size of one lane's unroll state. The learner's own limit may be lower."""


class RelayHost(SessionHost):
    """Answers workers from the relay's state, and fetches thetas and snapshots from the learner."""

    def __init__(self, core: RelayCore, client: LearnerClient) -> None:
        """Report events of workers to `core`; fetch thetas and snapshots through `client`."""
        self._core = core
        self._client = client
        self._thetas = RelayThetas(self._fetch_theta)

    def join(self, request: learner_pb2.JoinRequest) -> learner_pb2.JoinReply:
        return self._core.join(request)

    def attach(self, secret: str, peer: str) -> tuple[str, SendQueue] | None:
        return self._core.attach(secret)

    def detach(self, session_id: str, queue: SendQueue) -> None:
        self._core.detach(session_id, queue)

    def theta(self, outer_step: int) -> Iterator[Chunk]:
        try:
            body = self._thetas.get(self._core.reply.term, outer_step)
        except (RefusedError, UnavailableError) as error:
            raise _failed(error) from error
        yield from codec.chunks(body, outer_step, self._core.reply.chunk_bytes)

    def snapshot(self, lane: int, seq: int) -> Iterator[Chunk]:
        try:
            body = self._client.get_snapshot(lane, seq, MAX_SNAPSHOT_BYTES)
        except (RefusedError, UnavailableError) as error:
            raise _failed(error) from error
        yield from codec.chunks(body, seq, self._core.reply.chunk_bytes)

    def leave(self, request: learner_pb2.LeaveRequest) -> None:
        self._core.leave(request.session_id, request.reason, is_unfit=request.unfit)

    def body_bytes(self) -> int:
        return codec.body_bytes(self._core.reply.schema)

    def wants_body(self, session_id: str, push: learner_pb2.GradientEstimatorOut) -> bool:
        return not self._core.refuse_unread(session_id, push)

    def push(
        self, session_id: str, push: learner_pb2.GradientEstimatorOut, body: codec.Buffer | codec.CodecError
    ) -> None:
        self._core.push(session_id, push, body)

    def receive_snapshot(self, session_id: str, snapshot: learner_pb2.Snapshot) -> IncomingSnapshot | None:
        if 0 < snapshot.bytes <= MAX_SNAPSHOT_BYTES and self._core.wants_snapshot(session_id, snapshot):
            return _SnapshotInMemory(self._core, session_id, snapshot)
        return None

    def message(self, session_id: str, kind: str, message: Any) -> None:
        match kind:
            case "heartbeat":
                self._core.heartbeat(session_id, message)
            case "lane_return":
                self._core.return_lane(session_id, message)
            case _:
                self._core.pass_on(session_id, kind, message)

    def _fetch_theta(self, outer_step: int) -> codec.Buffer:
        return self._client.get_theta(outer_step, codec.body_bytes(self._core.reply.schema))


class _SnapshotInMemory(IncomingSnapshot):
    """A snapshot assembled in memory, which grows with the received data, not with the announced size."""

    def __init__(self, core: RelayCore, session_id: str, snapshot: learner_pb2.Snapshot) -> None:
        self._core = core
        self._session_id = session_id
        self._snapshot = snapshot
        self._body = bytearray()

    def add(self, chunk: Chunk) -> bool:
        try:
            codec.check_chunk(chunk, self._snapshot.transfer, len(self._body), self._snapshot.bytes)
        except codec.CodecError:
            return True  # the worker sends another snapshot later
        self._body += chunk.data
        if len(self._body) < self._snapshot.bytes:
            return False
        self._core.snapshot(self._session_id, self._snapshot, bytes(self._body))
        return True

    def abort(self) -> None:
        self._body.clear()


def _failed(error: RefusedError | UnavailableError) -> CallFailedError:
    is_final = isinstance(error, RefusedError)
    return CallFailedError(grpc.StatusCode.NOT_FOUND if is_final else grpc.StatusCode.UNAVAILABLE, str(error))
