"""A wait of a launch is named, limited, and ended by signals, also before the first worker has joined."""

import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from protos.exit_codes import ExitCode
from tests.end_to_end.launched import command, unspool
from tests.support.experiments import TINY, toml_of
from tests.support.patience import PATIENCE_S

pytestmark = [pytest.mark.end_to_end, pytest.mark.slow]


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.toml"
    path.write_text(toml_of(TINY))
    return path


@pytest.fixture
def silent() -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"127.0.0.1:{listening.getsockname()[1]}"


def test_an_address_without_a_cluster_is_refused(config: Path, tmp_path: Path) -> None:
    done = unspool("launch", config, "--address", "127.0.0.1:1", "--run-dir", tmp_path / "run")
    assert done.returncode == ExitCode.UNREACHABLE
    assert "--address 127.0.0.1:1: no Ray cluster answers" in done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_wait_for_a_cluster_that_does_not_answer(
    config: Path, tmp_path: Path, silent: str, number: signal.Signals
) -> None:
    launching = subprocess.Popen(
        command("launch", config, "--address", silent, "--run-dir", tmp_path / "run"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ,
    )
    assert launching.stdout is not None
    assert "checking" in launching.stdout.readline()
    waiting = next(line for line in launching.stdout if "waiting for the Ray cluster" in line)
    assert f"at {silent}, 40 s at most" in waiting
    launching.send_signal(number)
    _, errors = launching.communicate(timeout=PATIENCE_S)
    assert launching.returncode == ExitCode.TEMPORARY
    assert "stopped while waiting for the Ray cluster" in errors
