"""A disk that refuses: the run goes on and says so, and is itself again once there is room."""

import contextlib
import errno
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from learner.state.run_state import RunState
from learner.storage import files
from learner.storage.checkpoint_store import CheckpointHealth
from learner.storage.files import AppendFile
from learner.storage.records import Records, read_records
from learner.storage.snapshots import SnapshotRef, SnapshotStore
from protos import codec
from protos.exit_codes import CheckpointError
from protos.unspool.v1 import admin_pb2, learner_pb2
from tests.learner.builders import (
    OPENED,
    Peer,
    WatchedCore,
    gradient_body,
    make_core,
    make_settings,
    open_log,
)
from tests.learner.running import HandWrittenWorker, RunningLearner
from tests.learner.storage.test_records import record
from tests.learner.test_main import steps


class Disk:
    """What the learner writes through, once with room and once without."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.is_full = False
        for module, name in ((files.os, "fsync"), (SnapshotStore, "receive"), (AppendFile, "append")):
            monkeypatch.setattr(module, name, self._limited(getattr(module, name)))

    def _limited(self, write: Callable[..., Any]) -> Callable[..., Any]:
        def limited(*arguments: Any) -> Any:
            if self.is_full:
                raise OSError(errno.ENOSPC, "No space left on device")
            return write(*arguments)

        return limited


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    return Disk(monkeypatch)


def save(running: RunningLearner) -> None:
    running.ask("SaveCheckpoint", admin_pb2.SaveCheckpointRequest())


def test_training_continues_while_no_checkpoint_can_be_written(tmp_path: Path, disk: Disk) -> None:
    with RunningLearner(make_settings(tmp_path, every=100)) as running:
        worker = HandWrittenWorker(running).enter()
        disk.is_full = True
        with pytest.raises(Exception, match="No space left on device"):
            save(running)
        steps(worker, 0, 3)
        status = running.status()
        assert (status.state, status.outer_step) == ("DEGRADED", 3)
        assert "checkpoint: could not be written: [Errno 28] No space left on device" in status.problems
        assert b'unspool_run{state="degraded"} 1.0' in running.get("/metrics")[1]
        disk.is_full = False
        save(running)
        status = running.status()
        assert (status.state, [text for text in status.problems if "checkpoint" in text]) == ("RUNNING", [])
        assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-00000003.safetensors"]


def test_a_run_that_can_keep_nothing_fails_with_its_last_checkpoint(tmp_path: Path, disk: Disk) -> None:
    with RunningLearner(make_settings(tmp_path, give_up_s=0.5)) as running:
        steps(HandWrittenWorker(running).enter(), 0, 1)
        save(running)
        disk.is_full = True
        with pytest.raises(Exception, match="No space left on device"):
            save(running)
        assert running.wait() == 65
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-00000001.safetensors"]


def test_a_run_that_is_stopped_and_can_keep_nothing_says_so(tmp_path: Path, disk: Disk) -> None:
    with RunningLearner(make_settings(tmp_path)) as running:
        disk.is_full = True
    assert isinstance(running.error, CheckpointError)


def test_a_lane_state_that_found_no_room_is_a_problem_until_the_next(tmp_path: Path, disk: Disk) -> None:
    with RunningLearner(make_settings(tmp_path)) as running:
        worker = HandWrittenWorker(running).enter()
        lanes = worker.grants(3)
        disk.is_full = True
        send_state(worker, lanes[0], 1)
        worker.push(lanes[0], 1, 0, gradient_body(1.0))
        assert worker.verdict() == "ACCEPTED"
        assert "snapshots: could not be written" in " ".join(running.status().problems)
        disk.is_full = False
        send_state(worker, lanes[1], 1)
        worker.push(lanes[1], 1, 0, gradient_body(1.0))
        assert worker.verdict() == "ACCEPTED"
        assert list(running.status().problems) == []


def send_state(worker: HandWrittenWorker, grant: learner_pb2.LaneGrant, seq: int) -> None:
    state, transfer = b"state", 1_000_000 + grant.lane
    worker.send(
        snapshot=learner_pb2.Snapshot(
            lane=grant.lane,
            fencing_token=grant.fencing_token,
            seq=seq,
            bytes=len(state),
            sha256=hashlib.sha256(state).hexdigest(),
            transfer=transfer,
        )
    )
    worker.send_body(state, transfer)


def test_a_lane_state_that_filled_the_disk_leaves_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    receiver = SnapshotStore(tmp_path).receive(SnapshotRef(0, 1, "x"), transfer=1, size=4)
    monkeypatch.setattr(receiver, "_file", FullFile(receiver._file.name))
    with pytest.raises(OSError, match="No space"):
        receiver.add(next(codec.chunks(b"data", 1, 64)))
    receiver.abort()
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


class FullFile:
    """Refuses what is written, and to be closed with something in its buffer."""

    def __init__(self, name: str) -> None:
        self.name = name

    def write(self, data: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    def close(self) -> None:
        self.write(b"")


def test_a_failing_checkpoint_is_tried_again_and_in_the_end_given_up() -> None:
    health = CheckpointHealth(give_up_s=100.0)
    health.failed(now_s=0.0)
    assert (health.is_failing, health.retry_due(9.0), health.retry_due(10.0)) == (True, False, True)
    health.retrying()
    assert not health.retry_due(50.0)
    health.failed(now_s=60.0)
    assert (health.given_up(100.0), health.given_up(100.5)) == (False, True)
    health.succeeded()
    assert (health.is_failing, health.given_up(1e9), health.retry_due(1e9)) == (False, False, False)


def test_a_run_whose_checkpoints_are_given_up_fails_between_updates(tmp_path: Path) -> None:
    core: WatchedCore = make_core(tmp_path)
    peer = Peer(core)
    core.run.checkpoint_health.failed(core.run.clock() - 1e6)
    for lane in range(3):
        peer.push(lane, 1)
    assert core.updates.take_batch() is not None
    assert core.updates.ending() is None
    core.run.applying = ()
    assert core.updates.ending() is RunState.FAILED


def test_rows_that_found_no_room_come_later_and_events_cut_no_others_off(tmp_path: Path, disk: Disk) -> None:
    records, log = Records(tmp_path, 0), open_log(tmp_path / "events.jsonl")
    OPENED.callback(records.close)
    for number in (1, 2, 3):
        disk.is_full = number == 2
        log.add("info", f"kind-{number}", "text")
        with contextlib.suppress(OSError):
            records.write(record(number))
    assert [row.outer_step for row in read_records(tmp_path / "outer.csv")] == [1, 2, 3]
    assert [event.kind for event in open_log(tmp_path / "events.jsonl").latest(5)] == ["kind-1", "kind-3"]


def test_what_was_half_appended_is_taken_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = AppendFile(tmp_path / "file")
    file.append(b"whole\n")
    with (tmp_path / "file").open("ab", buffering=0) as opened, monkeypatch.context() as patch:
        patch.setattr(file, "_file", ShortFile(opened))
        with pytest.raises(OSError, match="No space"):
            file.append(b"half\n")
    file.close()
    assert (tmp_path / "file").read_bytes() == b"whole\n"


class ShortFile:
    """Has room for three bytes."""

    def __init__(self, file: Any) -> None:
        self.name, self.fileno, self.truncate = file.name, file.fileno, file.truncate
        self._file = file

    def write(self, data: bytes) -> int:
        return int(self._file.write(data[:3]))
