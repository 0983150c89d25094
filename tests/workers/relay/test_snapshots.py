import pytest

from protos import codec
from protos.unspool.v1.learner_pb2 import Snapshot
from workers.relay.snapshots import SnapshotInMemory

BODY = b"state of a lane"


@pytest.fixture
def forwarded() -> list[bytes]:
    return []


@pytest.fixture
def incoming(forwarded: list[bytes]) -> SnapshotInMemory:
    return SnapshotInMemory(Snapshot(transfer=4, bytes=len(BODY)), forwarded.append)


def test_a_body_is_forwarded_when_it_is_complete(incoming, forwarded):
    assert [incoming.add(chunk) for chunk in codec.chunks(BODY, 4, 8)] == [False, True]
    assert forwarded == [BODY]


def test_a_damaged_chunk_ends_the_transfer(incoming, forwarded):
    chunk = next(codec.chunks(BODY, 4, 8))
    chunk.crc32 ^= 1
    assert incoming.add(chunk)
    assert forwarded == []


def test_more_bytes_than_announced_end_the_transfer(incoming, forwarded):
    assert incoming.add(next(codec.chunks(BODY + b"x", 4, 100)))
    assert forwarded == []


def test_an_aborted_snapshot_starts_from_nothing(incoming, forwarded):
    first, second = codec.chunks(BODY, 4, 8)
    incoming.add(first)
    incoming.abort()
    assert incoming.add(second)  # it does not continue what was discarded
    assert forwarded == []
