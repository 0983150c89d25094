"""The commands that launch, check and show runs."""

import contextlib
import json
import tomllib
from pathlib import Path
from typing import Any

import pytest

from protos.exit_codes import ExitCode
from protos.unspool.v1.admin_pb2 import Status
from service.commands import cli
from service.commands.cli import DESCRIPTION
from service.commands.command import run_command
from service.run.run_directory import RunDirectory
from service.run.supervision import note_supervision, supervising
from service.supervise.launch import Backend
from tests.service.commands.shell import QUADRATIC, answered, reported
from tests.service.fakes import FakeAdmin


@pytest.fixture
def admin(monkeypatch: pytest.MonkeyPatch) -> FakeAdmin:
    """The learner of every run."""
    admin = FakeAdmin(workers_desired=2)
    monkeypatch.setattr(cli, "connected", lambda run: contextlib.nullcontext(admin))
    return admin


@pytest.fixture
def launches(monkeypatch: pytest.MonkeyPatch, run: RunDirectory) -> dict[str, Any]:
    """What `launch` and `supervise` would start, and with what; nothing is started."""
    called: dict[str, Any] = {}

    def prepare(*arguments: Any) -> RunDirectory:
        called["prepare"] = arguments
        return run

    def ended(run: RunDirectory, backend: Any, *display: Any, takeover: bool) -> Status:
        called["detach" if not display else "supervise"] = (backend, takeover)
        return Status(run=run.name, state="FINISHED", outer_step=4, outer_steps=4)

    monkeypatch.setattr("service.supervise.preparation.prepare", prepare)
    monkeypatch.setattr("service.supervise.launch.supervise", ended)
    monkeypatch.setattr("service.supervise.launch.detach", ended)
    return called


def test_every_exit_code_is_documented() -> None:
    assert all(f"{code.value:>3}  {code.meaning}" in DESCRIPTION for code in ExitCode)


def test_the_status_of_a_run_that_is_down_comes_from_its_directory(
    capsys: pytest.CaptureFixture[str], run: RunDirectory
) -> None:
    exit_code, status = answered(capsys, "status", run.path)
    assert exit_code == ExitCode.UNREACHABLE
    assert (status["state"], status["outer_steps"], status["workers"]) == ("DOWN", 100, [])


def test_an_invalid_configuration_is_reported_problem_by_problem(capsys: pytest.CaptureFixture[str]) -> None:
    exit_code, error = reported(capsys, "check", QUADRATIC, "--set", "seed=-1", "--set", "wrokers.count=1")
    assert exit_code == ExitCode.USAGE
    assert "2 problems in the configuration" in error
    assert "seed = -1: must be an integer from 0" in error
    assert "did you mean workers?" in error


def test_an_invalid_configuration_is_reported_to_programs_too(capsys: pytest.CaptureFixture[str]) -> None:
    exit_code, answer = answered(capsys, "check", QUADRATIC, "--set", "seed=-1")
    assert (exit_code, answer["exit_code"]) == (ExitCode.USAGE, ExitCode.USAGE)
    assert answer["problems"][0]["key"] == "seed"


def test_a_missing_configuration_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    exit_code, error = reported(capsys, "check", "none.toml")
    assert exit_code == ExitCode.USAGE
    assert "none.toml: cannot be read: No such file" in error


def test_a_checked_configuration_is_shown_with_its_defaults(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["check", str(QUADRATIC)]) == ExitCode.OK
    assert tomllib.loads(capsys.readouterr().out)["learner"]["host"] == "127.0.0.1"


def test_a_launch_prepares_and_supervises_the_run(
    launches: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["launch", QUADRATIC, "--workers", 3, "--set", "seed=5", "--backend", "local", "--takeover"]
    exit_code, status = answered(capsys, *arguments)
    assert (exit_code, status["state"]) == (ExitCode.OK, "FINISHED")
    assert launches["prepare"] == (QUADRATIC, ("seed=5", "workers.count=3"), None, False, True)
    assert launches["supervise"] == (Backend("local"), True)


def test_a_detached_launch_ends_with_the_commands_for_the_run(
    launches: dict[str, Any], capsys: pytest.CaptureFixture[str], run: RunDirectory
) -> None:
    assert run_command(["launch", str(QUADRATIC), "--backend", "local", "--detach"]) == ExitCode.OK
    assert launches["detach"] == (Backend("local"), False)
    assert f"unspool status {run.path} --watch" in capsys.readouterr().out


def test_a_run_is_supervised_without_being_prepared(
    launches: dict[str, Any], capsys: pytest.CaptureFixture[str], run: RunDirectory
) -> None:
    address = ["--address", "10.0.0.1:6379"]
    assert run_command(["supervise", str(run.path), *address]) == ExitCode.OK
    assert launches == {"supervise": (Backend("ray", "10.0.0.1:6379"), False)}
    assert capsys.readouterr().out.startswith("finished at step 4/4")


@pytest.mark.usefixtures("admin")
def test_the_status_is_the_learners_with_the_problems_of_its_supervisor(
    capsys: pytest.CaptureFixture[str], run: RunDirectory
) -> None:
    with supervising(run):
        note_supervision(run, ["no room"])
        exit_code, status = answered(capsys, "status", run.path)
    assert (exit_code, status["state"]) == (ExitCode.OK, "RUNNING")
    assert status["problems"] == ["supervisor: no room"]


def test_a_watched_status_is_printed_until_the_learner_ends(
    admin: FakeAdmin, capsys: pytest.CaptureFixture[str], run: RunDirectory
) -> None:
    admin.answer.outer_step = 7
    assert answered(capsys, "status", run.path, "--watch")[1]["outer_step"] == 7


def test_the_status_of_a_run_that_has_ended_is_no_error(
    capsys: pytest.CaptureFixture[str], run: RunDirectory
) -> None:
    (run.path / "term").write_text("1")
    (run.path / "status.json").write_text(json.dumps({"state": "FINISHED", "term": 1}))
    exit_code, status = answered(capsys, "status", run.path)
    assert (exit_code, status["state"]) == (ExitCode.OK, "FINISHED")


def test_certificates_are_made_for_the_named_hosts(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def make(directory: Path, hosts: tuple[str, ...], run: str, days: int) -> dict[str, Any]:
        return {"directory": str(directory), "hosts": list(hosts), "expires": f"{run} {days}"}

    monkeypatch.setattr("service.config.certificates.make_trial_certificates", make)
    arguments = ["certs", "init", "tls", "--host", "a", "--host", "b", "--run", "mine", "--days", "7"]
    assert run_command(arguments) == ExitCode.OK
    assert capsys.readouterr().out == "tls: for a, b; until mine 7\n"
