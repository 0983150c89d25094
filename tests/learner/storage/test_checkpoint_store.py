"""Checkpoints on disk: whole or absent, verified, and never without the lane states they need."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from learner.errors import (
    ConfigChangedError,
    CorruptCheckpointError,
    CorruptSnapshotError,
    NoValidCheckpointError,
)
from learner.storage import checkpoint as checkpoint_format
from learner.storage.checkpoint import Checkpoint, load_theta, read_header, verify
from learner.storage.checkpoint_store import CheckpointStore
from learner.storage.snapshots import SnapshotRef
from tests.learner.checkpoints import CONFIG, LIKE, make_checkpoint, theta_of
from unspool.serialization import digest

STORED = Path(__file__).parents[2] / "data" / "stored_2026_11"


def accept(_: SnapshotRef) -> None:
    return


@pytest.fixture
def store(tmp_path: Path) -> CheckpointStore:
    return CheckpointStore(tmp_path / "checkpoints", keep=3)


@pytest.fixture
def load(store: CheckpointStore) -> Callable[..., Checkpoint | None]:
    def load_newest(check: Callable[[SnapshotRef], None] = accept, reports: list[str] | None = None) -> Any:
        report = [].append if reports is None else reports.append
        return store.load_newest(LIKE, CONFIG, check, report)

    return load_newest


def damage(path: Path, position: int = -1) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(bytes(data))


def test_a_checkpoint_comes_back_as_it_was(store: CheckpointStore, load: Callable[..., Checkpoint]) -> None:
    saved = make_checkpoint()
    store.save(saved)
    loaded = load()
    assert dataclasses.replace(loaded, theta=None, learner_state=None) == dataclasses.replace(
        saved, theta=None, learner_state=None
    )
    assert digest((loaded.theta, loaded.learner_state)) == digest((saved.theta, saved.learner_state))


def test_without_any_checkpoint_there_is_nothing_to_load(load: Callable[..., Checkpoint | None]) -> None:
    assert load() is None


def test_the_newest_is_loaded(store: CheckpointStore, load: Callable[..., Checkpoint]) -> None:
    for outer_step in (5, 10, 7):
        store.save(make_checkpoint(outer_step))
    assert load().outer_step == 10


def test_only_so_many_are_kept(store: CheckpointStore) -> None:
    for outer_step in range(5, 10):
        store.save(make_checkpoint(outer_step))
    assert store.paths() == [store.path(outer_step) for outer_step in (7, 8, 9)]


def test_a_file_says_what_it_holds(store: CheckpointStore) -> None:
    path = store.save(make_checkpoint())
    header = read_header(path)
    assert path.name == "step-00000005.safetensors"
    assert (header["outer_step"], header["theta_sha256"]) == (5, digest(theta_of(5)))


@pytest.mark.parametrize("position", range(0, 1200, 37))
def test_a_flipped_bit_anywhere_is_found(store: CheckpointStore, position: int) -> None:
    path = store.save(make_checkpoint())
    damage(path, position % path.stat().st_size)
    with pytest.raises(CorruptCheckpointError):
        verify(path.read_bytes())


@pytest.mark.parametrize("size", [0, 7, 100, -1])
def test_a_cut_off_file_is_found(store: CheckpointStore, size: int) -> None:
    path = store.save(make_checkpoint())
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(CorruptCheckpointError):
        verify(path.read_bytes())


def test_a_corrupt_checkpoint_is_passed_over_loudly_and_set_aside(
    store: CheckpointStore, load: Callable[..., Checkpoint]
) -> None:
    store.save(make_checkpoint(5))
    newest = store.save(make_checkpoint(10))
    damage(newest)
    reports: list[str] = []
    assert load(reports=reports).outer_step == 5
    assert "step-00000010" in reports[0]
    assert newest.with_name(newest.name + ".corrupt").exists()
    assert store.paths() == [store.path(5)]


def test_a_checkpoint_whose_lane_states_are_gone_is_passed_over(
    store: CheckpointStore, load: Callable[..., Checkpoint]
) -> None:
    store.save(make_checkpoint(5))
    store.save(make_checkpoint(10))

    def only_old_snapshots(ref: SnapshotRef) -> None:
        if ref.seq == 8:
            raise CorruptSnapshotError("lane 0 is torn")

    assert load(check=only_old_snapshots).outer_step == 5


def test_where_none_verifies_all_stay_and_it_is_an_error(
    store: CheckpointStore, load: Callable[..., Checkpoint]
) -> None:
    path = store.save(make_checkpoint(5))
    damage(path)
    for _ in range(2):
        with pytest.raises(NoValidCheckpointError, match="none of 1 checkpoints can be resumed from"):
            load()
    assert path.exists()


def test_a_checkpoint_of_another_configuration_is_refused_and_not_set_aside(store: CheckpointStore) -> None:
    path = store.save(make_checkpoint(config_sha256="d" * 64))
    with pytest.raises(ConfigChangedError, match="another experiment"):
        store.load_newest(LIKE, CONFIG, accept, print)
    assert path.exists()


def test_a_checkpoint_of_another_theta_is_refused_by_the_leaf(store: CheckpointStore) -> None:
    store.save(make_checkpoint())
    like = LIKE | {"theta": {"w": np.zeros(4, np.float32)}}
    with pytest.raises(ConfigChangedError, match=r"leaf \['theta'\]\['w'\]"):
        store.load_newest(like, CONFIG, accept, print)


def test_theta_alone_can_be_read_from_a_file(store: CheckpointStore) -> None:
    path = store.save(make_checkpoint())
    assert np.array_equal(load_theta(path, theta_of(0))["w"], theta_of(5)["w"])


def test_a_half_written_checkpoint_is_never_seen(
    store: CheckpointStore, load: Callable[..., Checkpoint], monkeypatch: pytest.MonkeyPatch
) -> None:
    store.save(make_checkpoint(5))

    def crash(path: Path, target: Path) -> Path:
        raise OSError("killed before the rename")

    monkeypatch.setattr(Path, "replace", crash)
    with pytest.raises(OSError, match="killed"):
        store.save(make_checkpoint(10))
    assert load().outer_step == 5


def test_the_lane_states_that_files_need_are_known(store: CheckpointStore) -> None:
    store.save(make_checkpoint(5))
    store.save(make_checkpoint(10))
    assert store.referenced_snapshots() >= {(0, 3), (0, 8)}


def test_a_header_is_read_without_the_arrays(store: CheckpointStore) -> None:
    header = read_header(store.save(make_checkpoint()))
    assert (header["run_id"], header["outer_step"], header["theta_outer_steps"]) == ("run", 5, [3, 4, 5])


@pytest.mark.parametrize(("run", "outer_step"), [("killed", 128), ("asynchronous", 173)])
def test_a_stored_file_of_format_1_is_read_under_todays_names(run: str, outer_step: int) -> None:
    data = (STORED / run / "checkpoints" / f"step-{outer_step:08}.safetensors").read_bytes()
    header = checkpoint_format.verify(data)
    assert (header["format"], header["term"], header["outer_step"]) == ("1", 1, outer_step)
    assert header["theta_outer_steps"][-1] == outer_step


def test_the_fencing_tokens_of_a_file_of_format_1_are_kept() -> None:
    marks = checkpoint_format._marks(
        '[{"lane": 0, "watermark": 4, "incarnation": 9, "snapshot_seq": 0, "snapshot_sha256": ""}]'
    )
    assert [mark.fencing_token for mark in marks] == [9]


def test_equal_checkpoints_are_equal_files() -> None:
    assert checkpoint_format.encode(make_checkpoint()) == checkpoint_format.encode(make_checkpoint())


@pytest.mark.parametrize("metadata", [b"{}", b"[]", b"null"])
def test_a_file_of_another_kind_is_refused(tmp_path: Path, metadata: bytes) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(len(metadata).to_bytes(8, "little") + metadata)
    with pytest.raises(CorruptCheckpointError):
        read_header(path)
