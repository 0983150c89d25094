"""The status of a run without a learner, and what commands report: how it ended, and what resumes it."""

import contextlib
import fcntl
import json
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from protos.exit_codes import ExitCode
from protos.unspool.v1.admin_pb2 import Status
from service.commands.command import run_command
from service.run.last_status import last_status
from service.run.run_directory import RunDirectory
from service.run.supervision import supervising
from tests.service.commands.shell import QUADRATIC, answered, reported

COMMANDS = [
    ["workers"],
    ["lanes"],
    ["scale", 3],
    ["drain", "w0"],
    ["evict", "w0"],
    ["stack", "w0"],
    ["reset-lane", 0],
    ["pause"],
    ["resume"],
    ["stop"],
]


@pytest.fixture(params=["run", "my run"])
def run(request: pytest.FixtureRequest, tmp_path: Path) -> RunDirectory:
    run = RunDirectory(tmp_path / request.param)
    run.create(QUADRATIC.read_text(encoding="utf-8"))
    return run


def leave_behind(run: RunDirectory, state: str, outer_step: int, term: int = 1) -> None:
    """Write what the first learner process writes at its end."""
    (run.path / "term").write_text("1")
    status = {"run": run.name, "state": state, "term": term, "outer_step": outer_step, "outer_steps": 100}
    (run.path / "status.json").write_text(json.dumps(status))


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def error_of(capsys: pytest.CaptureFixture[str], command: list[object], run: RunDirectory) -> str:
    exit_code, error = reported(capsys, command[0], run.path, *command[1:])
    assert exit_code == ExitCode.UNREACHABLE
    return error


@pytest.mark.parametrize("command", COMMANDS, ids=str)
def test_every_command_says_how_the_run_ended_and_what_resumes_it(
    capsys: pytest.CaptureFixture[str], run: RunDirectory, command: list[object]
) -> None:
    leave_behind(run, "STOPPED", 7)
    error = error_of(capsys, command, run)
    assert "it has ended, stopped at step 7/100; to resume it: unspool launch " in error
    words = shlex.split(error.rpartition("to resume it: ")[2])
    assert words == ["unspool", "launch", str(run.path)]


def test_what_was_finished_can_be_trained_on(capsys: pytest.CaptureFixture[str], run: RunDirectory) -> None:
    leave_behind(run, "FINISHED", 100)
    words = shlex.split(error_of(capsys, ["scale", 2], run).rpartition("for example: ")[2])
    assert words == ["unspool", "launch", str(run.path), "--set", "outer_steps=200"]


def test_a_checkpoint_of_an_ended_run_is_not_saved_but_it_is_said_why(
    capsys: pytest.CaptureFixture[str], run: RunDirectory
) -> None:
    leave_behind(run, "FAILED", 7)
    exit_code, error = reported(capsys, "checkpoint", "save", run.path)
    assert exit_code == ExitCode.UNREACHABLE
    assert "it has ended, failed at step 7/100" in error


def test_a_learner_that_was_killed_is_down(capsys: pytest.CaptureFixture[str], run: RunDirectory) -> None:
    leave_behind(run, "STOPPED", 7, term=0)  # of the life before the one that was killed
    assert "it is down; to resume it: unspool launch" in error_of(capsys, ["stop"], run)


def test_nothing_is_to_be_launched_while_a_supervisor_restarts_the_learner(
    capsys: pytest.CaptureFixture[str], run: RunDirectory
) -> None:
    with supervising(run):
        error = error_of(capsys, ["stop"], run)
        _, status = answered(capsys, "status", run.path)
    assert "its supervisor is starting it" in error
    assert "unspool launch" not in error
    assert status["state"] == "DOWN"
    assert "its supervisor is starting it" in status["waiting_for"]
    assert "unspool launch" not in status["waiting_for"]


def test_nothing_is_to_be_launched_while_a_learner_starts(
    capsys: pytest.CaptureFixture[str], run: RunDirectory
) -> None:
    leave_behind(run, "FINISHED", 100)  # of the run before it was launched again
    with locked(run.path / "LOCK"):
        error = error_of(capsys, ["workers"], run)
    assert "its learner is running but does not answer: it is starting or hangs" in error
    assert "unspool launch" not in error


def test_the_status_of_a_run_that_is_down_names_what_resumes_it(
    capsys: pytest.CaptureFixture[str], run: RunDirectory
) -> None:
    assert run_command(["status", str(run.path)]) == ExitCode.UNREACHABLE
    assert "to resume it: unspool launch" in capsys.readouterr().out


@pytest.fixture
def short_run(tmp_path: Path) -> RunDirectory:
    """A run of ten outer steps, which are all that its configuration names."""
    run = RunDirectory(tmp_path / "quadratic-1")
    run.create("outer_steps = 10\n")
    return run


def store_status(run: RunDirectory, state: str, term: int) -> None:
    (run.path / "term").write_text("2\n")
    status = {"state": state, "term": term, "outer_step": 4, "loss": None, "endpoints": {"http": "x"}}
    (run.path / "status.json").write_text(json.dumps(status))


@pytest.mark.parametrize("state", ["FINISHED", "STOPPED", "FAILED"])
def test_the_last_status_is_the_one_stored_at_the_end(short_run: RunDirectory, state: str) -> None:
    store_status(short_run, state, term=2)
    status = last_status(short_run)
    assert (status.state, status.outer_step, dict(status.endpoints)) == (state, 4, {})


@pytest.mark.parametrize(("state", "term"), [("RUNNING", 2), ("STOPPED", 1)])
def test_a_learner_that_stored_no_status_is_down(short_run: RunDirectory, state: str, term: int) -> None:
    store_status(short_run, state, term)
    status = last_status(short_run)
    assert (status.state, status.outer_step, status.outer_steps) == ("DOWN", 0, 10)


def test_a_run_without_anything_but_a_configuration_is_down(short_run: RunDirectory) -> None:
    assert last_status(short_run) == Status(
        run="quadratic-1", state="DOWN", outer_steps=10, waiting_for=last_status(short_run).waiting_for
    )
