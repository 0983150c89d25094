"""One learner to a run directory: the lock, the term, and what becomes of a learner that is taken over."""

import contextlib
import hashlib
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from learner.main import serve
from learner.storage.checkpoint_store import CheckpointStore
from learner.storage.files import remove_partial
from learner.storage.ownership import Ownership
from learner.storage.snapshots import SnapshotRef, SnapshotStore
from protos import codec
from protos.exit_codes import FencedError, RunInUseError
from protos.unspool.v1.learner_pb2 import Goodbye
from tests.learner.builders import make_settings
from tests.learner.running import HandWrittenWorker, RunningLearner
from tests.learner.storage.test_checkpoint_store import CONFIG, LIKE, accept, make_checkpoint

HOLD_AND_DIE = """
import os, sys
from pathlib import Path
from learner.storage.ownership import Ownership
with Ownership(Path(sys.argv[1])).held():
    os.kill(os.getpid(), 9)
"""


class Waiting:
    """Time that passes when somebody waits, and what happens meanwhile."""

    def __init__(self, meanwhile: Callable[[], object] = lambda: None) -> None:
        self.now_s = 0.0
        self.meanwhile = meanwhile

    def clock(self) -> float:
        return self.now_s

    def wait(self, seconds: float) -> None:
        self.now_s += seconds
        self.meanwhile()


def owner(directory: Path, meanwhile: Callable[[], object] = lambda: None) -> Ownership:
    waiting = Waiting(meanwhile)
    return Ownership(directory, clock=waiting.clock, wait=waiting.wait)


def test_a_second_learner_is_refused_with_the_first_ones_name(tmp_path: Path) -> None:
    holder = f"pid {os.getpid()} on {socket.gethostname()}"
    with owner(tmp_path).held(), pytest.raises(RunInUseError, match=holder), owner(tmp_path).held():
        pass


def test_a_refused_learner_does_not_wipe_the_holders_name(tmp_path: Path) -> None:
    with owner(tmp_path).held():
        for _ in range(2):
            with pytest.raises(RunInUseError, match=f"pid {os.getpid()}"), owner(tmp_path).held():
                pass


def test_the_lock_ends_with_its_holder(tmp_path: Path) -> None:
    died = subprocess.run([sys.executable, "-c", HOLD_AND_DIE, str(tmp_path)], check=False)
    assert died.returncode == -9
    with owner(tmp_path).held():
        assert json.loads((tmp_path / "LOCK").read_text())["pid"] == os.getpid()


def test_the_lock_says_when_it_was_renewed(tmp_path: Path) -> None:
    first = owner(tmp_path)
    with first.held():
        before = json.loads((tmp_path / "LOCK").read_text())
        first.renew()
        after = json.loads((tmp_path / "LOCK").read_text())
    assert after["renewed_unix_time_s"] >= before["renewed_unix_time_s"]
    assert (after["pid"], after["host"]) == (os.getpid(), socket.gethostname())


def test_each_start_has_its_term(tmp_path: Path) -> None:
    assert [owner(tmp_path).begin_term(), owner(tmp_path).begin_term()] == [1, 2]


def test_a_later_term_fences_an_earlier_one(tmp_path: Path) -> None:
    first, second = owner(tmp_path), owner(tmp_path)
    first.begin_term()
    first.check()
    second.begin_term()
    second.check()
    with pytest.raises(FencedError, match="term 2, this one is 1"):
        first.keep()


def test_a_directory_of_an_older_program_continues_its_count_and_fences_that_program(tmp_path: Path) -> None:
    (tmp_path / "epoch").write_text("7\n")
    assert owner(tmp_path).begin_term() == 8
    assert (tmp_path / "epoch").read_text() == (tmp_path / "term").read_text() == "8\n"


def test_a_takeover_outdates_the_holder_and_then_waits_for_it_to_leave(tmp_path: Path) -> None:
    first = owner(tmp_path)
    first.begin_term()
    holding = contextlib.ExitStack()
    holding.enter_context(first.held())

    def leave_once_outdated() -> None:
        try:
            first.check()
        except FencedError:
            holding.close()

    second = owner(tmp_path, leave_once_outdated)
    lock = (tmp_path / "LOCK").stat().st_ino
    with second.held(takeover=True):
        assert (second.begin_term(), (tmp_path / "LOCK").stat().st_ino) == (3, lock)


def test_a_takeover_continues_without_a_holder_that_does_not_renew_its_lease(tmp_path: Path) -> None:
    hung, third = owner(tmp_path), owner(tmp_path)
    waiting = Waiting()
    second = Ownership(tmp_path, clock=waiting.clock, wait=waiting.wait, lease_s=15.0)
    with hung.held():
        hung.begin_term()
        with second.held(takeover=True):
            assert 15.0 < waiting.now_s < 20.0
            second.begin_term()
            with pytest.raises(RunInUseError), third.held():
                pass
            with pytest.raises(FencedError):
                hung.keep()


def test_a_takeover_does_not_outlast_a_holder_that_renews_its_lease(tmp_path: Path) -> None:
    stubborn = owner(tmp_path)
    with stubborn.held():
        second = owner(tmp_path, stubborn.renew)
        with pytest.raises(RunInUseError, match="does not yield"), second.held(takeover=True):
            pass


def test_one_of_two_takeovers_gets_the_run(tmp_path: Path) -> None:
    first, other = owner(tmp_path), owner(tmp_path)
    with first.held():
        second = owner(tmp_path, other.begin_term)
        with pytest.raises(RunInUseError, match="at the same time"), second.held(takeover=True):
            pass


def test_a_checkpoint_of_an_outdated_learner_is_not_written(tmp_path: Path) -> None:
    outdated = owner(tmp_path)
    outdated.begin_term()
    store = CheckpointStore(tmp_path / "checkpoints", keep=3, fence=outdated.check)
    kept = store.save(make_checkpoint(5, term=1))
    owner(tmp_path).begin_term()
    with pytest.raises(FencedError):
        store.save(make_checkpoint(6, term=1))
    assert list((tmp_path / "checkpoints").iterdir()) == [kept]


def test_a_checkpoint_that_stood_still_before_its_rename_never_counts(tmp_path: Path) -> None:
    """The outdated learner stands still between its look at the term and the rename."""
    later = CheckpointStore(tmp_path, keep=3)

    def meanwhile_another_begins() -> None:
        remove_partial(later.directory)
        later.save(make_checkpoint(6, term=2, elapsed_s=2.0))

    outdated = CheckpointStore(tmp_path, keep=3, fence=meanwhile_another_begins)
    with pytest.raises(FileNotFoundError):
        outdated.save(make_checkpoint(6, term=1, elapsed_s=1.0))
    newest = later.load_newest(LIKE, CONFIG, accept, print)
    assert newest is not None
    assert newest.term == 2


def test_a_lane_state_that_an_outdated_learner_received_replaces_none(tmp_path: Path) -> None:
    outdated = owner(tmp_path)
    owner(tmp_path).begin_term()
    store = SnapshotStore(tmp_path, outdated.check)
    ref = SnapshotRef(0, 1, hashlib.sha256(b"data").hexdigest())
    receiver = store.receive(ref, transfer=1, size=4)
    receiver.add(next(codec.chunks(b"data", 1, 64)))
    with pytest.raises(FencedError):
        receiver.commit()
    assert list(store.stored()) == []


def test_a_learner_that_is_taken_over_leaves_and_its_workers_join_the_next(tmp_path: Path) -> None:
    with RunningLearner(make_settings(tmp_path)) as first:
        worker = HandWrittenWorker(first).enter()
        worker.grants(3)
        with RunningLearner(make_settings(tmp_path), takeover=True) as second:
            assert worker.next("goodbye").reason == Goodbye.EXPIRED
            first.wait()
            assert isinstance(first.error, FencedError)
            assert second.status().term > 1
            assert json.loads((tmp_path / "endpoints.json").read_text()) == second.endpoints
            assert second.endpoints["learner"] == first.endpoints["learner"]
            assert list((tmp_path / "checkpoints").glob("*")) == []


def test_a_run_that_nobody_has_is_taken_over_like_any_other(tmp_path: Path) -> None:
    settings = make_settings(tmp_path, outer_steps=1)
    with RunningLearner(settings, takeover=True) as running:
        assert running.status().term == 1


def test_without_takeover_a_second_learner_changes_nothing(tmp_path: Path) -> None:
    with RunningLearner(make_settings(tmp_path)) as first:
        with pytest.raises(RunInUseError, match="--takeover"):
            serve(make_settings(tmp_path))
        assert first.status().term == 1
