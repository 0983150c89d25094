"""When checkpoints are made, and what becomes of the lane states that no checkpoint needs any longer."""

from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from learner.coordination.checkpointing import SaveJob
from learner.storage.checkpoint_store import CheckpointStore
from learner.storage.snapshots import SnapshotRef, SnapshotStore
from learner.training.disk_writer import Saver
from tests.learner.builders import Peer, WatchedCore, make_core, run_one_step

EVERY = 2


@pytest.fixture
def core(tmp_path: Path) -> WatchedCore:
    return make_core(tmp_path, every=EVERY)


@pytest.fixture
def peer(core: WatchedCore) -> Peer:
    return Peer(core)


def step(core: WatchedCore, peer: Peer) -> list[SaveJob]:
    run_one_step(core, peer)
    return core.checkpoints.take()


def store_snapshots(peer: Peer, seq: int, directory: Path | None = None) -> None:
    for lane in peer.core.run.lanes:
        ref = SnapshotRef(lane.number, seq, "s" * 64)
        peer.core.snapshot_stored(peer.session_id, lane.fencing_token, ref)
        if directory is not None:
            path = SnapshotStore(directory).path(lane.number, seq)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"state")


def test_a_checkpoint_waits_for_the_lane_states_of_its_version(core: WatchedCore, peer: Peer) -> None:
    for _ in range(EVERY):
        step(core, peer)
    assert not core.checkpoints.due()
    store_snapshots(peer, EVERY)
    (job,) = core.checkpoints.take()
    assert [mark.snapshot and mark.snapshot.seq for mark in job.checkpoint.lanes] == [2, 2, 2]
    assert [published.outer_step for published in job.checkpoint.thetas] == [2]


def test_a_checkpoint_does_not_wait_longer_than_one_update(core: WatchedCore, peer: Peer) -> None:
    for _ in range(EVERY):
        step(core, peer)
    (job,) = step(core, peer)
    assert job.checkpoint.outer_step == EVERY
    assert [mark.watermark for mark in job.checkpoint.lanes] == [2, 2, 2]


def test_a_checkpoint_keeps_every_theta_that_a_replay_from_it_needs(core: WatchedCore, peer: Peer) -> None:
    for _ in range(EVERY):
        step(core, peer)
    ref = SnapshotRef(0, 2, "s" * 64)
    core.snapshot_stored(peer.session_id, core.run.lanes[0].fencing_token, ref)
    (job,) = step(core, peer)
    assert [published.outer_step for published in job.checkpoint.thetas] == [0, 1, 2]


def test_a_lane_state_that_is_ahead_is_not_part_of_it(core: WatchedCore, peer: Peer) -> None:
    for _ in range(EVERY):
        step(core, peer)
    store_snapshots(peer, EVERY + 1)
    (job,) = step(core, peer)
    assert job.checkpoint.snapshots() == []


def test_a_request_is_served_at_any_version(core: WatchedCore, peer: Peer) -> None:
    step(core, peer)
    request = core.admin.request_checkpoint()
    (job,) = core.checkpoints.take()
    assert (job.checkpoint.outer_step, job.done, job.requested) == (1, request, True)


def test_the_last_version_is_saved_unless_it_is_on_disk(
    core: WatchedCore, peer: Peer, tmp_path: Path
) -> None:
    step(core, peer)
    (job,) = core.checkpoints.last()
    make_saver(core, tmp_path).save(job)
    assert core.checkpoints.last() == []


def make_saver(core: WatchedCore, directory: Path, keep: int = 2) -> Saver:
    checkpoints = CheckpointStore(directory / "checkpoints", keep)
    return Saver(core.checkpoints, checkpoints, SnapshotStore(directory / "lanes"))


def test_lane_states_are_deleted_when_no_checkpoint_needs_them(
    core: WatchedCore, peer: Peer, tmp_path: Path
) -> None:
    saver = make_saver(core, tmp_path)
    for outer_step in range(1, 4):
        run_one_step(core, peer)
        store_snapshots(peer, outer_step, tmp_path / "lanes")
        core.admin.request_checkpoint()
        for job in core.checkpoints.take():
            saver.save(job)
    kept = sorted(SnapshotStore(tmp_path / "lanes").stored())
    assert kept == [(lane, seq) for lane in range(3) for seq in (2, 3)]
    assert sorted(core.run.lanes[0].snapshots) == [2, 3]


def test_lane_states_that_the_next_checkpoint_needs_survive_the_one_before(
    core: WatchedCore, peer: Peer, tmp_path: Path
) -> None:
    saver = make_saver(core, tmp_path)
    run_one_step(core, peer)
    store_snapshots(peer, 1, tmp_path / "lanes")
    core.admin.request_checkpoint()
    (before,) = core.checkpoints.take()
    step(core, peer)
    store_snapshots(peer, 2, tmp_path / "lanes")
    for lane in range(3):
        peer.push(lane, 3)
    store_snapshots(peer, 3, tmp_path / "lanes")
    saver.save(before)
    (after,) = core.checkpoints.take()
    assert [ref.seq for ref in after.checkpoint.snapshots()] == [2, 2, 2]
    assert set(SnapshotStore(tmp_path / "lanes").stored()) >= {(lane, 2) for lane in range(3)}


def test_a_theta_that_only_a_checkpoint_needs_is_kept(core: WatchedCore, peer: Peer) -> None:
    for _ in range(9):
        run_one_step(core, peer)
    store_snapshots(peer, 1)
    for lane in range(3):
        peer.push(lane, 10)
    store_snapshots(peer, 10)  # ahead of theta, as after a drain in the middle of an outer step
    assert core.run.thetas.get(1) is not None


def test_a_disk_that_refuses_is_a_problem_and_not_the_end(
    core: WatchedCore,
    peer: Peer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    saver = make_saver(core, tmp_path)
    request = core.admin.request_checkpoint()
    monkeypatch.setattr(CheckpointStore, "save", refuse)
    saver.save(core.checkpoints.take()[0])
    assert isinstance(request.exception(), OSError)
    assert core.run.telemetry.problems == {"checkpoint": "could not be written: disk full"}
    monkeypatch.undo()
    saver.save(SaveJob(core.checkpoints.last()[0].checkpoint, Future(), requested=True))
    assert core.run.telemetry.problems == {}


def refuse(*_: Any) -> None:
    raise OSError("disk full")
