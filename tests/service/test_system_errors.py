"""What a command says when the operating system refuses a path."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from protos.exit_codes import ExitCode
from service.commands.command import run_command
from service.run.run_directory import RunDirectory
from service.supervise import preparation
from service.system_errors import naming, system_error
from tests.service.commands.shell import QUADRATIC, reported


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(preparation, "check_in_child", lambda tables: None)


@pytest.fixture
def loop(tmp_path: Path) -> Path:
    path = tmp_path / "loop"
    path.symlink_to(path)
    return path


def test_a_run_directory_below_a_file_is_refused_by_name(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    exit_code, error = reported(capsys, "launch", QUADRATIC, "--backend", "local", "--run-dir", "file/run")
    assert exit_code == ExitCode.SYSTEM
    assert "file/run" in error
    assert "Not a directory (a file stands where a folder is needed" in error


@pytest.mark.parametrize("run_dir", ["loop/run", "x" * 300])
def test_an_impossible_run_directory_is_refused_by_name(
    capsys: pytest.CaptureFixture[str], loop: Path, run_dir: str
) -> None:
    exit_code, error = reported(capsys, "launch", QUADRATIC, "--backend", "local", "--run-dir", run_dir)
    assert exit_code == ExitCode.SYSTEM
    assert run_dir in error


def test_a_file_called_runs_is_refused_by_name(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "runs").touch()
    exit_code, error = reported(capsys, "launch", QUADRATIC, "--backend", "local")
    assert exit_code == ExitCode.SYSTEM
    assert error.startswith("unspool: runs: File exists (a file stands where a folder is needed")


def test_a_run_that_lies_where_no_folder_can_be_written_to_is_named(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    run = RunDirectory(tmp_path / "run")
    run.create(QUADRATIC.read_text(encoding="utf-8"))
    (run.path / "logs").rmdir()
    (run.path / "logs").touch()
    exit_code, error = reported(capsys, "launch", "run", "--backend", "local")
    assert exit_code == ExitCode.SYSTEM
    assert "run/logs" in error


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES, errno.ENOSPC, errno.EDQUOT, errno.EPERM])
def test_errors_name_the_path_and_a_remedy(number: int) -> None:
    told = str(system_error(OSError(number, os.strerror(number), "some/path")))
    assert told.startswith(f"some/path: {os.strerror(number)} (")


def test_errors_without_a_path_say_what_the_system_said() -> None:
    assert str(system_error(OSError("as it is"))) == "the operating system refused: as it is"


def test_an_error_is_an_answer_to_programs_too(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "runs").touch()
    assert run_command(["launch", str(QUADRATIC), "--json"]) == ExitCode.SYSTEM
    assert '"exit_code": 72' in capsys.readouterr().out


def test_a_full_disk_is_told_with_the_file_that_was_written() -> None:
    with pytest.raises(OSError, match="No space left on device: 'some/file'"), naming("some/file"):
        Path("/dev/full").write_bytes(b"theta")


def test_a_reader_that_left_stays_one() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        with pytest.raises(BrokenPipeError), naming("standard output"):
            os.write(writing, b"x")
    finally:
        os.close(writing)


def test_a_working_folder_that_is_gone_is_told(tmp_path: Path) -> None:
    (tmp_path / "gone").mkdir()
    shell = f'cd {tmp_path}/gone && rmdir {tmp_path}/gone && "$@"'
    command = ["bash", "-c", shell, "bash", Path(sys.executable).parent / "unspool", "status", "r"]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    assert finished.returncode in (ExitCode.NOT_FOUND, ExitCode.SYSTEM)
    assert "Traceback" not in finished.stderr
