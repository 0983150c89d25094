"""Temporary folders too long for Ray's sockets, known beforehand."""

import socket
from pathlib import Path

import pytest

from protos.exit_codes import ExitCode
from service.machine import temporary_folder
from tests.service.test_command import QUADRATIC, told

SESSION = "ray/session_2026-11-28_12-34-56_123456_4194304/sockets"


@pytest.mark.parametrize("variable", ["RAY_TMPDIR", "TMPDIR"])
def test_sockets_fit_exactly_into_the_folders_that_are_found_short_enough(variable: str) -> None:
    folders = ["/" + "x" * length for length in range(100)]
    longest = [folder for folder in folders if temporary_folder({variable: folder}).state == "ok"][-1]
    with socket.socket(socket.AF_UNIX) as server:
        with pytest.raises(FileNotFoundError):  # the path is not too long, it is only not there
            server.bind(f"{longest}/{SESSION}/plasma_store")
        with pytest.raises(OSError, match="too long"):
            server.bind(f"{longest}x/{SESSION}/plasma_store")


def test_rays_own_variable_comes_first() -> None:
    found = temporary_folder({"TMPDIR": "/" + 99 * "x", "RAY_TMPDIR": "/tmp"})
    assert (found.state, found.said) == ("ok", "RAY_TMPDIR = /tmp is short enough for Ray's sockets")


def test_a_launch_is_refused_before_there_is_a_run(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = f"/tmp/{90 * 'x'}"
    monkeypatch.setenv("RAY_TMPDIR", folder)
    exit_code, error = told(capsys, "launch", QUADRATIC, "--run-dir", tmp_path / "run")
    assert exit_code == ExitCode.USAGE
    assert f"RAY_TMPDIR = {folder}: 95 bytes long" in error
    assert "at most 39" in error
    assert "set RAY_TMPDIR to a shorter folder" in error
    assert not (tmp_path / "run").exists()
