"""The program as a shell sees it: exit codes, and what is printed where."""

import json
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from protos.exit_codes import ExitCode
from protos.rpc.roles import Role
from service.commands.cli import DESCRIPTION
from service.commands.command import run_command
from service.config.run_config import RunConfig
from service.config.toml_document import read_tables, write_tables
from service.run.run_directory import RunDirectory

QUADRATIC = Path(__file__).parents[3] / "examples" / "quadratic_local.toml"


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    """A run that was launched once, and has no learner."""
    run = RunDirectory(tmp_path / "run")
    run.create(write_tables(RunConfig.from_tables(read_tables(QUADRATIC)).to_tables()))
    return run


def answered(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, Any]:
    exit_code = run_command([*map(str, arguments), "--json"])
    return exit_code, json.loads(capsys.readouterr().out)


def told(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str]:
    exit_code = run_command(list(map(str, arguments)))
    return exit_code, capsys.readouterr().err


def test_every_exit_code_is_documented() -> None:
    assert all(f"{code.value:>3}  {code.meaning}" in DESCRIPTION for code in ExitCode)


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
    exit_code, error = told(capsys, *arguments[:name], "nowhere", *arguments[name:])
    assert exit_code == ExitCode.NOT_FOUND
    assert "nowhere is no run" in error


@pytest.mark.parametrize("arguments", [["workers"], ["lanes"], ["pause"], ["resume"], ["stop"]])
def test_a_run_without_its_learner_is_unreachable(
    capsys: pytest.CaptureFixture[str], run: RunDirectory, arguments: list[str]
) -> None:
    exit_code, error = told(capsys, *arguments, run.path)
    assert exit_code == ExitCode.UNREACHABLE
    assert "does not listen" in error


def test_the_status_of_a_run_that_is_down_comes_from_its_directory(
    capsys: pytest.CaptureFixture[str], run: RunDirectory
) -> None:
    exit_code, status = answered(capsys, "status", run.path)
    assert exit_code == ExitCode.UNREACHABLE
    assert (status["state"], status["outer_steps"], status["workers"]) == ("DOWN", 100, [])


def test_a_negative_number_of_workers_is_refused(
    capsys: pytest.CaptureFixture[str], run: RunDirectory
) -> None:
    exit_code, error = told(capsys, "scale", run.path, -1)
    assert exit_code == ExitCode.USAGE
    assert "N = -1: must not be negative" in error


def test_an_invalid_configuration_is_told_problem_by_problem(capsys: pytest.CaptureFixture[str]) -> None:
    exit_code, error = told(capsys, "check", QUADRATIC, "--set", "seed=-1", "--set", "wrokers.count=1")
    assert exit_code == ExitCode.USAGE
    assert "2 problems in the configuration" in error
    assert "seed = -1: must be an integer from 0" in error
    assert "did you mean workers?" in error


def test_an_invalid_configuration_is_told_to_programs_too(capsys: pytest.CaptureFixture[str]) -> None:
    exit_code, answer = answered(capsys, "check", QUADRATIC, "--set", "seed=-1")
    assert (exit_code, answer["exit_code"]) == (ExitCode.USAGE, ExitCode.USAGE)
    assert answer["problems"][0]["key"] == "seed"


def test_a_missing_configuration_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    exit_code, error = told(capsys, "check", "none.toml")
    assert exit_code == ExitCode.USAGE
    assert "none.toml: cannot be read: No such file" in error


def test_a_checked_configuration_is_shown_with_its_defaults(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["check", str(QUADRATIC)]) == ExitCode.OK
    assert tomllib.loads(capsys.readouterr().out)["learner"]["host"] == "127.0.0.1"


def test_a_run_without_checkpoints_lists_none(capsys: pytest.CaptureFixture[str], run: RunDirectory) -> None:
    assert answered(capsys, "checkpoint", "list", run.path) == (ExitCode.OK, [])


def test_a_damaged_checkpoint_is_found(capsys: pytest.CaptureFixture[str], run: RunDirectory) -> None:
    run.checkpoints_path.mkdir()
    (run.checkpoints_path / "step-00000007.safetensors").write_bytes(b"damaged")
    exit_code, checkpoints = answered(capsys, "checkpoint", "verify", run.path)
    assert exit_code == ExitCode.CHECKPOINT
    assert checkpoints[0]["problem"]


@pytest.mark.parametrize("arguments", [["evaluate"], ["export", "--out", "theta"]])
def test_a_theta_that_there_is_not_yet_is_named(
    capsys: pytest.CaptureFixture[str], run: RunDirectory, arguments: list[str]
) -> None:
    exit_code, error = told(capsys, arguments[0], run.path, *arguments[1:])
    assert exit_code == ExitCode.CHECKPOINT
    assert "has no checkpoint" in error


def test_a_worker_without_a_token_file_is_told_so(capsys: pytest.CaptureFixture[str]) -> None:
    exit_code, error = told(capsys, "worker", "--learner", "127.0.0.1:1", "--token-file", "none")
    assert exit_code == ExitCode.NOT_FOUND
    assert "token file none cannot be read" in error


def test_a_worker_takes_its_token_file_from_the_environment(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UNSPOOL_TOKEN_FILE", "elsewhere")
    _, error = told(capsys, "worker", "--learner", "127.0.0.1:1")
    assert "token file elsewhere cannot be read" in error
    monkeypatch.delenv("UNSPOOL_TOKEN_FILE")
    exit_code, error = told(capsys, "worker", "--learner", "127.0.0.1:1")
    assert exit_code == ExitCode.USAGE
    assert "$UNSPOOL_TOKEN_FILE" in error


def test_a_workers_tls_files_that_are_not_there_are_named(
    capsys: pytest.CaptureFixture[str], run: RunDirectory, tmp_path: Path
) -> None:
    token, nowhere = run.token_path(Role.WORKER), tmp_path / "nowhere"
    exit_code, error = told(
        capsys, "worker", "--learner", "127.0.0.1:1", "--token-file", token, "--tls", nowhere
    )
    assert exit_code == ExitCode.USAGE
    assert f"{nowhere / 'ca.crt'}: cannot be read" in error


def test_an_unexpected_error_is_one_line_unless_it_is_to_be_debugged(
    capsys: pytest.CaptureFixture[str], run: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.commands.admin_commands.find_run", lambda run: 1 / 0)
    exit_code, error = told(capsys, "pause", run.path)
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
