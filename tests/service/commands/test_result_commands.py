"""The commands on checkpoints and on the trained theta."""

import contextlib
from pathlib import Path
from typing import Any

import pytest

from learner.storage.checkpoint_store import CheckpointStore
from protos.exit_codes import ExitCode
from protos.unspool.v1.admin_pb2 import SaveCheckpointRequest
from service.commands import result_commands
from service.commands.command import run_command
from service.run.run_directory import RunDirectory
from tests.learner.checkpoints import make_checkpoint
from tests.service.commands.shell import answered, reported
from tests.service.fakes import FakeAdmin


def test_a_run_without_checkpoints_lists_none(capsys: pytest.CaptureFixture[str], run: RunDirectory) -> None:
    assert answered(capsys, "checkpoint", "list", run.path) == (ExitCode.OK, [])


def test_a_damaged_checkpoint_is_found(capsys: pytest.CaptureFixture[str], run: RunDirectory) -> None:
    run.checkpoints_path.mkdir()
    (run.checkpoints_path / "step-00000007.safetensors").write_bytes(b"damaged")
    exit_code, checkpoints = answered(capsys, "checkpoint", "verify", run.path)
    assert exit_code == ExitCode.CHECKPOINT
    assert checkpoints[0]["problem"]


@pytest.mark.parametrize("arguments", [["evaluate"], ["export", "--out", "theta"]])
def test_a_run_without_a_theta_is_named(
    capsys: pytest.CaptureFixture[str], run: RunDirectory, arguments: list[str]
) -> None:
    exit_code, error = reported(capsys, arguments[0], run.path, *arguments[1:])
    assert exit_code == ExitCode.CHECKPOINT
    assert "has no checkpoint" in error


def test_checkpoints_are_listed_for_programs_and_people(
    capsys: pytest.CaptureFixture[str], run: RunDirectory
) -> None:
    CheckpointStore(run.checkpoints_path, keep=2).save(make_checkpoint(7))
    exit_code, (newest,) = answered(capsys, "checkpoint", "list", run.path)
    assert (exit_code, newest["outer_step"], newest["problem"]) == (ExitCode.OK, 7, "")
    assert answered(capsys, "checkpoint", "verify", run.path) == (ExitCode.OK, [newest])
    assert run_command(["checkpoint", "list", str(run.path)]) == ExitCode.OK
    assert newest["theta_sha256"] in capsys.readouterr().out


def test_a_checkpoint_is_saved_by_the_learner(
    capsys: pytest.CaptureFixture[str], run: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    admin = FakeAdmin()
    monkeypatch.setattr(result_commands, "connected", lambda run: contextlib.nullcontext(admin))
    assert run_command(["checkpoint", "save", str(run.path)]) == ExitCode.OK
    assert capsys.readouterr().out == "checkpoint of step 7: checkpoints/step-7\n"
    assert admin.requests == [SaveCheckpointRequest()]


class Trained:
    outer_step = 12

    def to_bytes(self) -> bytes:
        return b"theta"


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> None:
    """The trained theta of every run."""
    monkeypatch.setattr("service.evaluation.trained.load_trained", lambda run: Trained())


@pytest.mark.usefixtures("trained")
def test_theta_is_exported_to_a_file(
    capsys: pytest.CaptureFixture[str], run: RunDirectory, tmp_path: Path
) -> None:
    out = tmp_path / "theta"
    assert answered(capsys, "export", run.path, "--out", out) == (
        ExitCode.OK,
        {"path": str(out), "outer_step": 12},
    )
    assert out.read_bytes() == b"theta"


@pytest.mark.usefixtures("trained")
def test_an_export_that_cannot_be_written_is_named(
    capsys: pytest.CaptureFixture[str], run: RunDirectory, tmp_path: Path
) -> None:
    exit_code, error = reported(capsys, "export", run.path, "--out", tmp_path / "none" / "theta")
    assert exit_code == ExitCode.SYSTEM
    assert f"{tmp_path}/none/theta: No such file or directory" in error


def test_an_evaluation_takes_its_options_and_returns_its_report(
    capsys: pytest.CaptureFixture[str], run: RunDirectory, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def report(*arguments: Any) -> dict[str, Any]:
        *options, progress = arguments
        progress("Adam", 10, 1)
        return {"options": [str(option) for option in options]}

    monkeypatch.setattr("service.evaluation.evaluation_report.evaluation_report", report)
    monkeypatch.setattr(result_commands.tables, "evaluation_table", str)
    options = ["--tasks", 3, "--steps", 10, "--estimator", 1, "--out", tmp_path]
    _, facts = answered(capsys, "evaluate", run.path, *options)
    assert facts == {"options": [str(run.path), "3", "10", "1", str(tmp_path)]}
