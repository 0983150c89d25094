"""The disk writer: rows and checkpoints in the order of their updates, and errors that do not end it."""

import contextlib
import queue
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path

import pytest

from learner.coordination.checkpointing import SaveJob
from learner.storage.checkpoint_store import CheckpointStore
from learner.storage.records import Records, UpdateRecord, read_records
from learner.storage.snapshots import SnapshotStore
from learner.training.disk_writer import DiskWriter, Saver
from protos.exit_codes import FencedError
from tests.learner.builders import WatchedCore, make_core
from tests.learner.checkpoints import make_checkpoint
from tests.learner.storage.test_records import record
from tests.support.patience import PATIENCE_S


class Rows(Records):
    """A table whose next rows can be made to fail."""

    error: OSError | None = None

    def write(self, record: UpdateRecord) -> None:
        if self.error is not None:
            raise self.error
        super().write(record)


@pytest.fixture
def core(tmp_path: Path) -> WatchedCore:
    return make_core(tmp_path)


@pytest.fixture
def rows(tmp_path: Path) -> Rows:
    return Rows(tmp_path / "metrics", 0)


@pytest.fixture
def store(tmp_path: Path) -> CheckpointStore:
    return CheckpointStore(tmp_path / "checkpoints", keep=3)


@pytest.fixture
def reports() -> "queue.Queue[BaseException]":
    return queue.Queue()


@pytest.fixture
def writer(
    core: WatchedCore,
    rows: Rows,
    store: CheckpointStore,
    tmp_path: Path,
    reports: "queue.Queue[BaseException]",
) -> Iterator[DiskWriter]:
    saver = Saver(core.checkpoints, store, SnapshotStore(tmp_path / "lanes"))
    writer = DiskWriter(core.updates, rows, saver, reports.put)
    writer.start()
    yield writer
    with contextlib.suppress(ValueError):  # a test may have closed it
        writer.close()


def job(outer_step: int) -> SaveJob:
    return SaveJob(make_checkpoint(outer_step, lanes=()), Future(), requested=True)


def test_rows_before_a_checkpoint_are_on_disk_when_it_is(
    writer: DiskWriter, tmp_path: Path, store: CheckpointStore
) -> None:
    saving = job(5)
    for outer_step in (4, 5):
        writer.record(record(outer_step))
    writer.save(saving)
    assert saving.done.result(PATIENCE_S).path == store.path(5)
    assert [row.outer_step for row in read_records(tmp_path / "metrics" / "outer.csv")] == [4, 5]
    assert not writer.busy


def test_queued_jobs_are_written_before_the_writer_closes(writer: DiskWriter, store: CheckpointStore) -> None:
    jobs = [job(5), job(6)]
    for each in jobs:
        writer.save(each)
    writer.close()
    assert all(each.done.done() for each in jobs)
    assert store.paths() == [store.path(5), store.path(6)]


def test_a_checkpoint_on_disk_is_known_to_the_core(core: WatchedCore, writer: DiskWriter) -> None:
    saving = job(5)
    writer.save(saving)
    saving.done.result(PATIENCE_S)
    assert core.status().checkpoint.outer_step == 5


def test_rows_that_cannot_be_written_are_a_problem_until_one_can(
    core: WatchedCore, writer: DiskWriter, rows: Rows
) -> None:
    rows.error = OSError("disk full")
    writer.record(record(1))
    flush(writer)
    assert core.status().problems == ["metrics: could not be written: disk full"]
    rows.error = None
    writer.record(record(2))
    flush(writer)
    assert core.status().problems == []


def flush(writer: DiskWriter) -> None:
    """Wait until everything queued so far is written."""
    last = job(9)
    writer.save(last)
    last.done.result(PATIENCE_S)


def test_a_failed_checkpoint_does_not_end_the_writer(
    core: WatchedCore, writer: DiskWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing = job(5)
    with monkeypatch.context() as patch:
        patch.setattr(CheckpointStore, "save", disk_full)
        writer.save(failing)
        assert str(failing.done.exception(PATIENCE_S)) == "disk full"
    assert core.status().problems == ["checkpoint: could not be written: disk full"]
    flush(writer)
    assert core.status().problems == []


def test_a_fenced_writer_ends_and_reports_it(
    writer: DiskWriter, reports: "queue.Queue[BaseException]", monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(CheckpointStore, "save", fenced)
    saving = job(5)
    writer.save(saving)
    assert isinstance(saving.done.exception(PATIENCE_S), FencedError)
    assert isinstance(reports.get(timeout=PATIENCE_S), FencedError)


def disk_full(*_: object) -> Path:
    raise OSError("disk full")


def fenced(*_: object) -> Path:
    raise FencedError("taken over")
