"""The update thread: it applies batches until the run ends, and saves the last theta."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from learner.errors import BrokenRunError
from learner.state.run_state import RunState
from learner.storage.checkpoint_store import CheckpointStore
from learner.storage.records import Records, Series
from learner.storage.snapshots import SnapshotStore
from learner.training.disk_writer import DiskWriter, Saver
from learner.training.outer import OuterLearner
from learner.training.update_loop import UpdateLoop
from protos.exit_codes import CheckpointError
from tests.learner.builders import Peer, WatchedCore, make_core


class Process:
    """A core with its update loop and disk writer."""

    def __init__(self, directory: Path, outer_steps: int) -> None:
        self.core: WatchedCore = make_core(directory, outer_steps=outer_steps, every=2)
        self.peer = Peer(self.core)
        settings = self.core.settings
        outer = OuterLearner(settings.experiment, settings.aggregation.batch_size)
        outer.initialise()
        self.store = CheckpointStore(directory / "checkpoints", keep=10)
        saver = Saver(self.core.checkpoints, self.store, SnapshotStore(directory / "lanes"))
        self.reports: list[BaseException] = []
        self.writer = DiskWriter(
            self.core.updates, Records(directory / "metrics", 0), saver, self.reports.append
        )
        self.series = Series()
        self.loop = UpdateLoop(self.core, outer, self.writer, self.series)
        self.writer.start()

    def push_all(self, *_: object) -> None:
        """Push the next estimate of every lane."""
        for lane in range(3):
            self.peer.push(lane, self.core.run.outer_step + 1)


@pytest.fixture
def process(tmp_path: Path) -> Iterator[Process]:
    process = Process(tmp_path, outer_steps=3)
    yield process
    process.writer.close()


@pytest.fixture
def busy(process: Process, monkeypatch: pytest.MonkeyPatch) -> Process:
    """A process whose worker pushes whenever the update thread starts to wait."""
    wait = process.core.updates.wait

    def push_and_wait() -> None:
        process.push_all()
        wait()

    monkeypatch.setattr(process.core.updates, "wait", push_and_wait)
    return process


def test_the_run_finishes_at_its_last_outer_step_with_a_checkpoint(busy: Process) -> None:
    assert busy.loop.run() is RunState.FINISHED
    assert busy.series.columns()["outer_step"] == [1, 2, 3]
    assert busy.store.path(3) in busy.store.paths()
    assert busy.peer.verdicts()[-1] == "CLOSED" or busy.peer.received("goodbye")


def test_scheduled_checkpoints_are_written_on_the_way(busy: Process) -> None:
    busy.loop.run()
    assert busy.store.path(2) in busy.store.paths()


def test_a_stopped_run_saves_its_theta_without_any_update(process: Process) -> None:
    process.core.admin.stop(now=True, reason="test")
    assert process.loop.run() is RunState.STOPPED
    assert process.store.paths() == [process.store.path(0)]
    assert process.peer.received("goodbye") != []


def test_a_requested_checkpoint_is_written_before_the_end(process: Process) -> None:
    request = process.core.admin.request_checkpoint()
    process.core.admin.stop(now=True, reason="test")
    process.loop.run()
    assert request.result(0).outer_step == 0


def test_a_last_checkpoint_that_cannot_be_written_is_an_error(
    process: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(CheckpointStore, "save", disk_full)
    process.core.admin.stop(now=True, reason="test")
    with pytest.raises(CheckpointError, match="the last checkpoint could not be written: OSError"):
        process.loop.run()


def test_a_broken_run_saves_nothing(process: Process) -> None:
    process.core.crashed(OSError("gone"), is_fenced=False)
    with pytest.raises(BrokenRunError, match="gone"):
        process.loop.run()
    assert process.store.paths() == []


def disk_full(*_: object) -> Path:
    raise OSError("disk full")
