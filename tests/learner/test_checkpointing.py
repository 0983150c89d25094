"""When checkpoints are made, and what becomes of the lane states that no checkpoint needs any longer."""

from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from learner.checkpoint_store import CheckpointStore
from learner.checkpointing import CheckpointSchedule, SaveJob
from learner.core import LearnerCore
from learner.outer import OuterLearner
from learner.runtime import Runtime
from learner.saver import Saver
from learner.snapshots import SnapshotRef, SnapshotStore
from tests.learner.builders import EXPERIMENT, Peer, make_core, run_one_step

EVERY = 2


@pytest.fixture(scope="module")
def outer() -> OuterLearner:
    outer = OuterLearner(EXPERIMENT, batch=3)
    outer.initialise()
    return outer


@pytest.fixture
def core(tmp_path: Path) -> LearnerCore:
    return make_core(tmp_path)


@pytest.fixture
def schedule(outer: OuterLearner) -> CheckpointSchedule:
    return CheckpointSchedule(outer, EVERY)


@pytest.fixture
def peer(core: LearnerCore) -> Peer:
    return Peer(core)


def step(core: LearnerCore, peer: Peer, schedule: CheckpointSchedule) -> list[SaveJob]:
    run_one_step(core, peer)
    jobs = schedule.take(core.run)
    schedule.updated(core.run)
    return jobs


def store_snapshots(peer: Peer, seq: int, directory: Path | None = None) -> None:
    for lane in peer.core.run.lanes:
        ref = SnapshotRef(lane.number, seq, "s" * 64)
        peer.core.snapshot_stored(peer.worker_id, lane.incarnation, ref)
        if directory is not None:
            path = SnapshotStore(directory).path(lane.number, seq)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"state")


def test_a_checkpoint_waits_for_the_lane_states_of_its_version(
    core: LearnerCore, peer: Peer, schedule: CheckpointSchedule
) -> None:
    for _ in range(EVERY):
        step(core, peer, schedule)
    assert not schedule.due(core.run)
    store_snapshots(peer, EVERY)
    (job,) = schedule.take(core.run)
    assert [mark.snapshot and mark.snapshot.seq for mark in job.checkpoint.lanes] == [2, 2, 2]
    assert [published.version for published in job.checkpoint.ring] == [2]


def test_a_checkpoint_does_not_wait_longer_than_one_update(
    core: LearnerCore, peer: Peer, schedule: CheckpointSchedule
) -> None:
    for _ in range(EVERY):
        step(core, peer, schedule)
    (job,) = step(core, peer, schedule)
    assert job.checkpoint.version == EVERY
    assert [mark.watermark for mark in job.checkpoint.lanes] == [2, 2, 2]


def test_a_checkpoint_keeps_every_theta_that_a_replay_from_it_needs(
    core: LearnerCore, peer: Peer, schedule: CheckpointSchedule
) -> None:
    for _ in range(EVERY):
        step(core, peer, schedule)
    ref = SnapshotRef(0, 2, "s" * 64)
    core.snapshot_stored(peer.worker_id, core.run.lanes[0].incarnation, ref)
    (job,) = step(core, peer, schedule)
    assert [published.version for published in job.checkpoint.ring] == [0, 1, 2]


def test_a_lane_state_that_is_ahead_is_not_part_of_it(
    core: LearnerCore, peer: Peer, schedule: CheckpointSchedule
) -> None:
    for _ in range(EVERY):
        step(core, peer, schedule)
    store_snapshots(peer, EVERY + 1)
    (job,) = step(core, peer, schedule)
    assert job.checkpoint.snapshots() == []


def test_a_request_is_served_at_any_version(
    core: LearnerCore, peer: Peer, schedule: CheckpointSchedule
) -> None:
    step(core, peer, schedule)
    request = schedule.request()
    (job,) = schedule.take(core.run)
    assert (job.checkpoint.version, job.done, job.requested) == (1, request, True)


def test_the_last_version_is_saved_unless_it_is_on_disk(
    core: LearnerCore, peer: Peer, schedule: CheckpointSchedule, tmp_path: Path
) -> None:
    step(core, peer, schedule)
    (job,) = schedule.last(core.run)
    make_saver(core, tmp_path).save(job)
    assert schedule.last(core.run) == []


def make_saver(core: LearnerCore, directory: Path, keep: int = 2) -> Saver:
    checkpoints = CheckpointStore(directory / "checkpoints", keep)
    return Saver(Runtime(core), checkpoints, SnapshotStore(directory / "lanes"))


def test_lane_states_are_deleted_when_no_checkpoint_needs_them(
    core: LearnerCore, peer: Peer, schedule: CheckpointSchedule, tmp_path: Path
) -> None:
    saver = make_saver(core, tmp_path)
    for version in range(1, 4):
        run_one_step(core, peer)
        store_snapshots(peer, version, tmp_path / "lanes")
        schedule.request()
        for job in schedule.take(core.run):
            saver.save(job)
    kept = sorted(SnapshotStore(tmp_path / "lanes").stored())
    assert kept == [(lane, seq) for lane in range(3) for seq in (2, 3)]
    assert sorted(core.run.lanes[0].snapshots) == [2, 3]


def test_lane_states_that_the_next_checkpoint_needs_survive_the_one_before(
    core: LearnerCore, peer: Peer, schedule: CheckpointSchedule, tmp_path: Path
) -> None:
    saver = make_saver(core, tmp_path)
    run_one_step(core, peer)
    store_snapshots(peer, 1, tmp_path / "lanes")
    schedule.request()
    (before,) = schedule.take(core.run)
    step(core, peer, schedule)
    store_snapshots(peer, 2, tmp_path / "lanes")
    for lane in range(3):
        peer.push(lane, 3)
    store_snapshots(peer, 3, tmp_path / "lanes")
    saver.save(before)
    (after,) = schedule.take(core.run)
    assert [ref.seq for ref in after.checkpoint.snapshots()] == [2, 2, 2]
    assert set(SnapshotStore(tmp_path / "lanes").stored()) >= {(lane, 2) for lane in range(3)}


def test_a_theta_that_only_a_checkpoint_needs_is_kept(core: LearnerCore, peer: Peer) -> None:
    for _ in range(9):
        run_one_step(core, peer)
    store_snapshots(peer, 1)
    for lane in range(3):
        peer.push(lane, 10)
    store_snapshots(peer, 10)  # ahead of theta, as after a drain in the middle of an outer step
    assert core.run.ring.get(1) is not None


def test_a_disk_that_refuses_is_a_problem_and_not_the_end(
    core: LearnerCore,
    peer: Peer,
    schedule: CheckpointSchedule,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    saver = make_saver(core, tmp_path)
    request = schedule.request()
    monkeypatch.setattr(CheckpointStore, "save", refuse)
    saver.save(schedule.take(core.run)[0])
    assert isinstance(request.exception(), OSError)
    assert core.run.problems == {"checkpoint": "could not be written: disk full"}
    monkeypatch.undo()
    saver.save(SaveJob(schedule.last(core.run)[0].checkpoint, Future(), requested=True))
    assert core.run.problems == {}


def refuse(*_: Any) -> None:
    raise OSError("disk full")
