import hashlib
from pathlib import Path

import pytest

from learner.errors import CorruptSnapshotError
from learner.storage.files import remove_partial
from learner.storage.snapshots import SnapshotRef, SnapshotStore
from protos import codec

DATA = bytes(range(200))
REF = SnapshotRef(lane=3, seq=7, sha256=hashlib.sha256(DATA).hexdigest())


@pytest.fixture
def store(tmp_path: Path) -> SnapshotStore:
    return SnapshotStore(tmp_path)


def receive(store: SnapshotStore, ref: SnapshotRef = REF, data: bytes = DATA) -> None:
    receiver = store.receive(ref, transfer=1, size=len(DATA))
    for chunk in codec.chunks(data, 1, 64):
        receiver.add(chunk)
    receiver.commit()


def test_a_snapshot_is_stored_under_its_lane_and_seq(store: SnapshotStore, tmp_path: Path) -> None:
    receive(store)
    assert (tmp_path / "3" / "seq-00000007.safetensors").read_bytes() == DATA
    assert list(store.stored()) == [(3, 7)]


def test_a_snapshot_is_read_as_it_was_sent(store: SnapshotStore) -> None:
    receive(store)
    assert list(store.read(REF, 150)) == [DATA[:150], DATA[150:]]


def test_a_snapshot_with_another_digest_is_not_kept(store: SnapshotStore, tmp_path: Path) -> None:
    with pytest.raises(CorruptSnapshotError, match="lane 3 at seq 7"):
        receive(store, data=DATA[::-1])
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_more_bytes_than_announced_are_refused(store: SnapshotStore) -> None:
    receiver = store.receive(REF, transfer=1, size=100)
    first, second, *_ = codec.chunks(DATA, 1, 64)
    receiver.add(first)
    with pytest.raises(codec.TooLargeError):
        receiver.add(second)


def test_a_snapshot_given_up_leaves_nothing(store: SnapshotStore, tmp_path: Path) -> None:
    receiver = store.receive(REF, transfer=1, size=len(DATA))
    receiver.add(next(codec.chunks(DATA, 1, 64)))
    receiver.abort()
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_what_a_killed_learner_had_started_to_write_is_removed(store: SnapshotStore, tmp_path: Path) -> None:
    receive(store)
    store.receive(SnapshotRef(3, 8, "x"), transfer=1, size=10)
    remove_partial(store.directory)
    assert [path.name for path in (tmp_path / "3").iterdir()] == ["seq-00000007.safetensors"]


@pytest.mark.parametrize("damage", [lambda path: path.write_bytes(b"torn"), lambda path: path.unlink()])
def test_a_damaged_snapshot_is_found_before_its_first_byte_is_sent(
    store: SnapshotStore, damage: object
) -> None:
    receive(store)
    assert callable(damage)
    damage(store.path(3, 7))
    with pytest.raises(CorruptSnapshotError):
        next(store.read(REF, 64))
