"""A learner that somebody else has started: whether it is one, and how it ended."""

import contextlib
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from protos.exit_codes import RunInUseError
from protos.unspool.v1.admin_pb2 import Status
from service.run.run_directory import RunDirectory
from service.supervise import learner_process
from service.supervise.learner_process import AdoptedLearner, running_learner
from tests.service.fakes import FakeAdmin
from workers.pools.local_process import AdoptedProcess


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    created = RunDirectory(tmp_path)
    created.create("outer_steps = 10\n")
    return created


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> Status:
    """What a learner says that can be reached."""
    admin = FakeAdmin()

    @contextlib.contextmanager
    def connected(run: RunDirectory) -> Iterator[FakeAdmin]:
        yield admin

    monkeypatch.setattr(learner_process, "connected", connected)
    return admin.answer


@contextlib.contextmanager
def held(run: RunDirectory, pid: int, term: int = 3) -> Iterator[None]:
    """A lock and endpoints as the learner with this number would have them."""
    endpoints = {
        "run": run.name,
        "pid": pid,
        "term": term,
        "learner": "127.0.0.1:9",
        "admin": "127.0.0.1:9",
        "http": "127.0.0.1:9",
    }
    (run.path / "endpoints.json").write_text(json.dumps(endpoints))
    with (run.path / "LOCK").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        lock.write(json.dumps({"pid": pid, "host": socket.gethostname()}) + "   ")
        lock.flush()
        yield


def test_a_run_without_a_lock_has_no_learner(run: RunDirectory) -> None:
    assert running_learner(run) is None
    (run.path / "LOCK").touch()
    assert running_learner(run) is None


def test_a_learner_that_answers_is_adopted(run: RunDirectory, answers: Status) -> None:
    answers.run, answers.term = run.name, 3
    with held(run, os.getpid()):
        adopted = running_learner(run)
    assert adopted is not None
    assert (adopted.pid, adopted.poll()) == (os.getpid(), None)


@pytest.mark.parametrize(("name", "term"), [("other", 3), ("", 2)])
def test_a_learner_of_another_start_is_not_adopted(
    run: RunDirectory, answers: Status, name: str, term: int
) -> None:
    answers.run, answers.term = name or run.name, term
    with held(run, os.getpid()), pytest.raises(RunInUseError, match=f"pid {os.getpid()}"):
        running_learner(run)


def test_a_learner_that_does_not_answer_is_not(run: RunDirectory) -> None:
    with held(run, os.getpid()), pytest.raises(RunInUseError, match="--takeover"):
        running_learner(run)


@pytest.mark.parametrize(
    ("state", "term", "exit_code"),
    [("STOPPED", 3, 0), ("FINISHED", 3, 0), ("FAILED", 3, 65), ("RUNNING", 3, 70), ("FINISHED", 2, 70)],
)
def test_how_an_adopted_learner_ended_is_read_from_what_it_left(
    run: RunDirectory, state: str, term: int, exit_code: int
) -> None:
    (run.path / "term").write_text("3\n")
    (run.path / "status.json").write_text(json.dumps({"state": state, "term": term}))
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        learner = AdoptedLearner(run, AdoptedProcess(process.pid))
        assert learner.poll() is None
        process.kill()
    assert learner.poll() == exit_code


def test_an_adopted_learner_is_asked_to_end(run: RunDirectory) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        AdoptedLearner(run, AdoptedProcess(process.pid)).end()
    assert process.returncode == -signal.SIGTERM
