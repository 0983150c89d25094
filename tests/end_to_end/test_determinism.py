"""Theta is a function of the configuration: by SHA-256, with real processes that are scaled and killed."""

import contextlib
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end.launched import launched, unspool
from tests.support.experiments import DIGITS, toml_of

pytestmark = [pytest.mark.end_to_end, pytest.mark.slow]


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("determinism") / "digits.toml"
    path.write_text(toml_of(DIGITS))
    return path


@pytest.fixture
def undisturbed(digits_digests: list[str]) -> str:
    """Theta's digest after 30 outer steps of the loop in one process."""
    return digits_digests[-1]


@pytest.mark.parametrize("workers", [1, 3])
def test_theta_does_not_depend_on_the_number_of_workers(
    config: Path, undisturbed: str, workers: int, tmp_path: Path
) -> None:
    with launched(config, tmp_path / "run", "--backend", "local", "--workers", str(workers)) as run:
        assert run.finish() == 0, run.output()
        assert run.digest() == undisturbed


def test_theta_does_not_depend_on_scaling(config: Path, undisturbed: str, tmp_path: Path) -> None:
    """Wait for each of 1 -> 3 -> 2, so that lanes do move with their unroll state."""
    with launched(config, tmp_path / "run", "--backend", "local", "--workers", "1") as run:
        for step, workers in ((3, 3), (12, 2)):
            run.wait_for_step(step)
            unspool("pause", run.run_dir)
            unspool("scale", run.run_dir, str(workers))
            run.wait_for(lambda s, n=workers: sum(bool(worker["lanes"]) for worker in s["workers"]) == n)
            unspool("resume", run.run_dir)
        assert run.finish() == 0, run.output()
        assert run.digest() == undisturbed


def kill_workers(status: dict[str, Any]) -> None:
    for worker in status["workers"]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(worker["pid"], signal.SIGKILL)


def test_theta_does_not_depend_on_kills(config: Path, undisturbed: str, tmp_path: Path) -> None:
    """Kill all workers, then the learner, while they compute; `launch` restarts them."""
    with launched(config, tmp_path / "run", "--backend", "local", "--workers", "2") as run:
        kill_workers(run.wait_for(lambda s: s["outer_step"] >= 8 and len(s["workers"]) == 2))
        run.wait_for_step(16)
        os.kill(run.pid_of_learner(), signal.SIGKILL)
        assert run.finish() == 0, run.output()
        assert run.digest() == undisturbed


def test_a_stopped_run_is_resumed_with_another_number_of_workers(
    config: Path, undisturbed: str, tmp_path: Path
) -> None:
    with launched(config, tmp_path / "run", "--backend", "local", "--workers", "1") as run:
        run.wait_for_step(5)
        assert unspool("stop", run.run_dir).returncode == 0
        assert run.finish() == 0, run.output()
    with launched(config, tmp_path / "run", "--backend", "local", "--workers", "3") as again:
        assert again.finish() == 0, again.output()
        assert again.digest() == undisturbed


def test_a_finished_run_trains_on_when_given_more_outer_steps(
    config: Path, undisturbed: str, tmp_path: Path
) -> None:
    options = ["--backend", "local", "--workers", "2"]
    with launched(config, tmp_path / "run", *options, "--set", "outer_steps=16") as run:
        assert run.finish() == 0, run.output()
    with launched(config, tmp_path / "run", *options) as longer:
        assert longer.finish() == 0, longer.output()
        assert longer.digest() == undisturbed
