"""Waiting for a Ray cluster ends, and a folder that is too long for Ray's sockets is refused before."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from protos.exit_codes import ExitCode, InterruptedRunError, LearnerUnreachableError
from service.supervise.ray_cluster import await_cluster, temporary_folder
from tests.service.commands.shell import QUADRATIC, reported

SESSION = "ray/session_2026-11-28_12-34-56_123456_4194304/sockets"


@pytest.fixture
def mute_port() -> Iterator[str]:
    """The address of a program that accepts connections and never says anything."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


@pytest.mark.parametrize(
    "address", ["127.0.0.1:1", "ray://127.0.0.1:1", "127.0.0.1:port", "nowhere.invalid:1"]
)
def test_an_address_where_nothing_listens_is_refused_at_once(address: str) -> None:
    with pytest.raises(LearnerUnreachableError, match="no Ray cluster answers"):
        await_cluster(address, lambda: False)


def test_a_program_that_is_not_ray_is_given_up(mute_port: str) -> None:
    with pytest.raises(LearnerUnreachableError, match=f"--address {mute_port}: .*no Ray answers on it"):
        await_cluster(mute_port, lambda: False, wait_s=1.0)


def test_waiting_ends_when_somebody_wants_it_to(mute_port: str) -> None:
    with pytest.raises(InterruptedRunError, match=f"waiting for the Ray cluster at {mute_port}"):
        await_cluster(mute_port, lambda: True)


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
    assert (found.state, found.text) == ("ok", "RAY_TMPDIR = /tmp is short enough for Ray's sockets")


def test_a_launch_is_refused_before_there_is_a_run(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = f"/tmp/{90 * 'x'}"
    monkeypatch.setenv("RAY_TMPDIR", folder)
    exit_code, error = reported(capsys, "launch", QUADRATIC, "--run-dir", tmp_path / "run")
    assert exit_code == ExitCode.USAGE
    assert f"RAY_TMPDIR = {folder}: 95 bytes long" in error
    assert "at most 39" in error
    assert "set RAY_TMPDIR to a shorter folder" in error
    assert not (tmp_path / "run").exists()
