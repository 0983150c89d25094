"""Restoring a run from its newest checkpoint."""

import hashlib
from pathlib import Path

import pytest

from learner.errors import ConfigChangedError
from learner.settings import LearnerSettings
from learner.state.lanes import LaneState
from learner.state.run import Run
from learner.storage.checkpoint_store import CheckpointStore
from learner.storage.snapshots import SnapshotRef, SnapshotStore
from learner.training.disk_writer import Saver
from learner.training.outer import OuterLearner
from learner.training.resume import restore
from tests.learner.builders import WatchedCore, make_settings, open_log
from tests.support.clock import Clock

STATE = b"state of a lane"


class Files:
    """The files of a run, from which learner processes start one after the other."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.settings = make_settings(directory)
        self.checkpoints = CheckpointStore(directory / "checkpoints", keep=3)
        self.snapshots = SnapshotStore(directory / "lanes")
        self.events = open_log(directory / "events.jsonl")
        self.clock = Clock()

    def start(self, term: int, settings: LearnerSettings | None = None) -> Run:
        settings = settings or self.settings
        outer = OuterLearner(settings.experiment, settings.aggregation.batch_size)
        return restore(settings, term, outer, self.checkpoints, self.snapshots, self.events, self.clock)

    def store_snapshot(self, lane: int, seq: int) -> SnapshotRef:
        path = self.snapshots.path(lane, seq)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(STATE)
        return SnapshotRef(lane, seq, hashlib.sha256(STATE).hexdigest())

    def save(self, run: Run) -> None:
        """Write a checkpoint of a run."""
        core = WatchedCore(run)
        core.checkpoints.request()
        for job in core.checkpoints.take():
            Saver(core.checkpoints, self.checkpoints, self.snapshots).save(job)


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


def test_without_checkpoints_a_run_starts_at_outer_step_0(files: Files) -> None:
    run = files.start(term=1)
    assert (run.outer_step, run.checkpoint, len(run.lanes)) == (0, None, 3)
    assert run.thetas.newest.sha256 == files.start(term=2).thetas.newest.sha256


def test_a_lane_continues_at_its_watermark_under_a_larger_fencing_token(files: Files) -> None:
    run = files.start(term=1)
    lane = run.lanes[1]
    lane.accepted, lane.applied = 6, 5
    run.lanes.grant(lane, "w0#1")
    lane.snapshots = {seq: files.store_snapshot(1, seq) for seq in (4, 6)}
    files.save(run)
    resumed = files.start(term=2).lanes[1]
    assert (resumed.accepted, resumed.applied, resumed.state) == (5, 5, LaneState.FREE)
    assert list(resumed.snapshots) == [4]
    assert resumed.fencing_token > lane.fencing_token


def test_counts_and_progress_of_theta_continue(files: Files) -> None:
    run = files.start(term=1)
    run.telemetry.counters.inner_steps, run.control.moved_at = 1000, 3
    files.clock.advance(50.0)
    files.save(run)
    resumed = files.start(term=2)
    assert (resumed.telemetry.counters.inner_steps, resumed.control.moved_at) == (1000, 3)
    assert resumed.telemetry.counters.elapsed_s(files.clock()) == 50.0
    assert resumed.checkpoint is not None
    assert resumed.checkpoint[0].path == files.checkpoints.path(0)


def test_lane_states_that_no_checkpoint_needs_are_deleted(files: Files) -> None:
    run = files.start(term=1)
    run.lanes[0].applied = 4
    run.lanes[0].snapshots[4] = files.store_snapshot(0, 4)
    files.save(run)
    files.store_snapshot(0, 5)
    files.store_snapshot(2, 1)
    files.start(term=2)
    assert list(files.snapshots.stored()) == [(0, 4)]


def test_unfinished_files_of_the_last_process_are_removed(files: Files) -> None:
    for folder in ("checkpoints", "lanes/0"):
        (files.directory / folder).mkdir(parents=True)
        (files.directory / folder / "x.partial").write_bytes(b"half")
    files.start(term=1)
    assert list(files.directory.rglob("*.partial")) == []


def test_a_checkpoint_with_a_damaged_lane_state_is_skipped_with_an_event(files: Files) -> None:
    run = files.start(term=1)
    files.save(run)
    run.lanes[0].applied = 4
    run.lanes[0].snapshots[4] = files.store_snapshot(0, 4)
    files.save(run)
    files.snapshots.path(0, 4).write_bytes(b"damaged")
    with pytest.raises(Exception, match="none of 1 checkpoints can be resumed from"):
        files.start(term=2)
    assert "checkpoint_passed_over" in [event.kind for event in files.events.latest(10)]


def test_another_number_of_lanes_is_rejected(files: Files) -> None:
    files.save(files.start(term=1))
    with pytest.raises(ConfigChangedError, match="the checkpoint has 3 lanes, the configuration 4"):
        files.start(term=2, settings=make_settings(files.directory, lanes=4))
