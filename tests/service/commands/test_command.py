"""The program as a shell sees it: exit codes, and what is printed where."""

import subprocess
import sys

import pytest

from protos.exit_codes import ExitCode
from service.commands.command import run_command
from service.run.run_directory import RunDirectory
from tests.service.commands.shell import QUADRATIC, reported


@pytest.mark.parametrize(
    "arguments", [["frob"], ["launch"], ["scale", "run"], ["checkpoint"], ["status", "--wacth"]]
)
def test_a_bad_command_line_is_a_usage_error(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        run_command(arguments)
    assert caught.value.code == ExitCode.USAGE


@pytest.mark.parametrize(
    "arguments",
    [
        ["status"],
        ["workers"],
        ["lanes"],
        ["events"],
        ["scale", 2],
        ["pause"],
        ["stop"],
        ["checkpoint", "list"],
    ],
)
def test_a_run_that_is_not_there_is_named(
    capsys: pytest.CaptureFixture[str], arguments: list[object]
) -> None:
    name = 2 if arguments[0] == "checkpoint" else 1
    exit_code, error = reported(capsys, *arguments[:name], "nowhere", *arguments[name:])
    assert exit_code == ExitCode.NOT_FOUND
    assert "nowhere is not a run" in error


@pytest.mark.parametrize("arguments", [["workers"], ["lanes"], ["pause"], ["resume"], ["stop"]])
def test_a_run_without_its_learner_is_unreachable(
    capsys: pytest.CaptureFixture[str], run: RunDirectory, arguments: list[str]
) -> None:
    exit_code, error = reported(capsys, *arguments, run.path)
    assert exit_code == ExitCode.UNREACHABLE
    assert "does not listen" in error


def test_a_negative_number_of_workers_is_refused(
    capsys: pytest.CaptureFixture[str], run: RunDirectory
) -> None:
    exit_code, error = reported(capsys, "scale", run.path, -1)
    assert exit_code == ExitCode.USAGE
    assert "N = -1: must not be negative" in error


def test_an_unexpected_error_is_one_line_unless_it_is_to_be_debugged(
    capsys: pytest.CaptureFixture[str], run: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.commands.admin_commands.find_run", lambda run: 1 / 0)
    exit_code, error = reported(capsys, "pause", run.path)
    assert exit_code == ExitCode.FAILED
    assert error.startswith("unspool: ZeroDivisionError: division by zero (test_command.py:")
    assert error.endswith("; --debug shows the traceback\n")
    with pytest.raises(ZeroDivisionError):
        run_command(["pause", str(run.path), "--debug"])


def test_the_program_is_light_to_ask(run: RunDirectory) -> None:
    asked = f"""
import sys
from service.__main__ import main
main(["workers", {str(run.path)!r}])
print(*sorted({{"jax", "ray", "matplotlib", "numpy"}} & sys.modules.keys()))
"""
    finished = subprocess.run(
        [sys.executable, "-c", asked], capture_output=True, text=True, check=True, cwd=QUADRATIC.parents[1]
    )
    assert finished.stdout == "\n"
