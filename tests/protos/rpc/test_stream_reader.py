"""Reading of a session's stream, with a host that records what it is given."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from protos import codec
from protos.rpc.session_host import IncomingSnapshot, SessionHost
from protos.rpc.stream_reader import StreamReader
from protos.unspool.v1.common_pb2 import Chunk
from protos.unspool.v1.learner_pb2 import GradientEstimatorOut, Heartbeat, LogLine, Snapshot, WorkerMessage

SCHEMA = codec.schema_of([np.zeros(4, np.float32)])
BODY = bytes(range(16))


class RecordedSnapshot(IncomingSnapshot):
    def __init__(self, size: int) -> None:
        self.body, self.size, self.aborted = b"", size, False

    def add(self, chunk: Chunk) -> bool:
        self.body += chunk.data
        return len(self.body) >= self.size

    def abort(self) -> None:
        self.aborted = True


class RecordingHost(SessionHost):
    """Records pushes, snapshots and messages; wants every body while `is_curious`."""

    def __init__(self) -> None:
        self.is_curious = True
        self.pushes: list[tuple[str, int, Any]] = []
        self.snapshots: list[RecordedSnapshot] = []
        self.messages: list[tuple[str, str, Any]] = []

    def body_bytes(self) -> int:
        return codec.body_bytes(SCHEMA)

    def wants_body(self, session_id: str, push: GradientEstimatorOut) -> bool:
        return self.is_curious

    def push(
        self, session_id: str, push: GradientEstimatorOut, body: codec.Buffer | codec.CodecError
    ) -> None:
        self.pushes.append((session_id, push.push_id, body if isinstance(body, Exception) else bytes(body)))

    def receive_snapshot(self, session_id: str, snapshot: Snapshot) -> IncomingSnapshot | None:
        if not self.is_curious:
            return None
        self.snapshots.append(RecordedSnapshot(snapshot.bytes))
        return self.snapshots[-1]

    def message(self, session_id: str, kind: str, message: Any) -> None:
        self.messages.append((session_id, kind, message))

    def join(self, request: Any) -> Any: ...
    def attach(self, secret: str, peer: str) -> Any: ...
    def detach(self, session_id: str, queue: Any) -> None: ...
    def theta(self, outer_step: int) -> Any: ...
    def snapshot(self, lane: int, seq: int) -> Any: ...
    def leave(self, request: Any) -> None: ...


@pytest.fixture
def host() -> RecordingHost:
    return RecordingHost()


@pytest.fixture
def reader(host: RecordingHost) -> StreamReader:
    return StreamReader(host, "w0#1")


def push(push_id: int, body: bytes, chunk_bytes: int = 100) -> Iterator[WorkerMessage]:
    grad = codec.tensors(body, push_id, chunk_bytes)
    yield WorkerMessage(push=GradientEstimatorOut(push_id=push_id, grad=grad))
    if grad.WhichOneof("body") == "transfer":
        yield from (WorkerMessage(chunk=chunk) for chunk in codec.chunks(body, push_id, chunk_bytes))


def snapshot(transfer: int, body: bytes) -> Iterator[WorkerMessage]:
    yield WorkerMessage(snapshot=Snapshot(transfer=transfer, bytes=len(body)))
    yield from (WorkerMessage(chunk=chunk) for chunk in codec.chunks(body, transfer, 4))


def take_all(reader: StreamReader, *messages: WorkerMessage) -> None:
    for message in messages:
        reader.take(message)


@pytest.mark.parametrize("chunk_bytes", [100, 6])
def test_a_push_arrives_inline_or_in_chunks(
    host: RecordingHost, reader: StreamReader, chunk_bytes: int
) -> None:
    take_all(reader, *push(3, BODY, chunk_bytes))
    assert host.pushes == [("w0#1", 3, BODY)]


def test_the_chunks_of_a_body_that_is_not_wanted_are_dropped(
    host: RecordingHost, reader: StreamReader
) -> None:
    host.is_curious = False
    take_all(reader, *push(3, BODY, 6), *snapshot(4, b"state"))
    assert (host.pushes, host.snapshots) == ([], [])


def test_a_damaged_chunk_ends_its_push_with_the_error(host: RecordingHost, reader: StreamReader) -> None:
    header, first, *rest = push(3, BODY, 6)
    first.chunk.crc32 ^= 1
    take_all(reader, header, first, *rest)
    ((_, push_id, error),) = host.pushes
    assert push_id == 3
    assert isinstance(error, codec.CorruptBodyError)


def test_a_body_beyond_the_schema_is_too_large(host: RecordingHost, reader: StreamReader) -> None:
    take_all(reader, *push(3, BODY + b"more", 17))
    ((_, _, error),) = host.pushes
    assert isinstance(error, codec.TooLargeError)


def test_a_new_push_replaces_an_incomplete_one(host: RecordingHost, reader: StreamReader) -> None:
    header, first, *_ = push(3, BODY, 6)
    take_all(reader, header, first, *push(4, BODY, 6))
    assert host.pushes == [("w0#1", 4, BODY)]


def test_a_snapshot_and_a_push_may_alternate(host: RecordingHost, reader: StreamReader) -> None:
    state, grad = list(snapshot(9, b"state of a lane")), list(push(3, BODY, 6))
    take_all(reader, state[0], grad[0], state[1], grad[1], *state[2:], *grad[2:])
    assert host.pushes == [("w0#1", 3, BODY)]
    assert host.snapshots[0].body == b"state of a lane"


def test_incomplete_snapshots_are_aborted(host: RecordingHost, reader: StreamReader) -> None:
    take_all(reader, *list(snapshot(9, b"state"))[:2], *list(snapshot(10, b"state"))[:2])
    reader.close()
    assert [one.aborted for one in host.snapshots] == [True, True]


def test_a_complete_snapshot_is_not_aborted(host: RecordingHost, reader: StreamReader) -> None:
    take_all(reader, *snapshot(9, b"state"))
    reader.close()
    assert not host.snapshots[0].aborted


def test_other_messages_are_passed_with_their_session(host: RecordingHost, reader: StreamReader) -> None:
    heartbeat, line = Heartbeat(progress=3), LogLine(text="hello")
    take_all(reader, WorkerMessage(heartbeat=heartbeat), WorkerMessage(log=line), WorkerMessage())
    assert host.messages == [("w0#1", "heartbeat", heartbeat), ("w0#1", "log", line)]
