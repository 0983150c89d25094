"""Learners and supervisors that are killed or taken over: the run continues with its workers."""

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end.launched import LaunchedRun, launched, processes_naming, unspool
from tests.support.experiments import DIGITS, toml_of

pytestmark = [pytest.mark.end_to_end, pytest.mark.slow]

LOCAL = ("--backend", "local", "--workers", "1")


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "digits.toml"
    path.write_text(toml_of(DIGITS, "outer_steps=100000", "checkpoint.every=5"))
    return path


def pids(status: dict[str, Any]) -> list[int]:
    return [worker["pid"] for worker in status["workers"]]


def computing(run: LaunchedRun, term: int, beyond_step: int = 2) -> dict[str, Any]:
    """Return the first status of a learner process after theta has moved."""
    return run.wait_for(
        lambda status: status["term"] >= term and status["outer_step"] > beyond_step and pids(status) != []
    )


def problems_shown(run: LaunchedRun) -> list[str]:
    """Return the problems that the command line shows, which include those of the supervisor."""
    problems: list[str] = json.loads(unspool("status", run.run_dir, "--json").stdout)["problems"]
    return problems


def test_a_killed_learner_is_restarted_and_keeps_its_workers(config: Path, tmp_path: Path) -> None:
    with launched(config, tmp_path / "run", *LOCAL) as run:
        before = computing(run, 1)
        os.kill(run.pid_of_learner(), signal.SIGKILL)
        after = computing(run, 2, before["outer_step"])
        assert (pids(after), after["endpoints"]) == (pids(before), before["endpoints"])
        run.wait_for(lambda _: problems_shown(run) == [])
        run.process.send_signal(signal.SIGINT)
        assert run.finish() == 0, run.output()
        assert "the learner was killed by SIGKILL (1 of at most 5 times" in run.output()
        assert processes_naming(str(run.run_dir)) == []


def test_a_run_without_its_supervisor_continues_and_is_adopted(config: Path, tmp_path: Path) -> None:
    with launched(config, tmp_path / "run", *LOCAL) as first:
        before = computing(first, 1)
        first.process.kill()
        first.process.wait()
        assert "to supervise it" in problems_shown(first)[0]
        with launched(first.run_dir, tmp_path / "run", *LOCAL) as second:
            after = computing(second, 1, before["outer_step"] + 1)
            assert (after["term"], pids(after)) == (1, pids(before))
            # The learner also runs without a supervisor: its steps do not show that the second has started.
            second.wait_for(lambda _: problems_shown(second) == [])
            assert unspool("launch", second.run_dir, "--backend", "local").returncode == 73
            os.kill(second.pid_of_learner(), signal.SIGKILL)
            assert pids(computing(second, 2, after["outer_step"])) == pids(before)
            second.process.send_signal(signal.SIGINT)
            assert second.finish() == 0, second.output()
        assert processes_naming(str(first.run_dir)) == []


def test_a_run_is_taken_over(config: Path, tmp_path: Path) -> None:
    with launched(config, tmp_path / "run", *LOCAL) as first:
        before = computing(first, 1)
        with launched(first.run_dir, tmp_path / "run", *LOCAL, "--takeover") as second:
            computing(second, 2)
            assert first.finish() == 76
            computing(second, 2, before["outer_step"])
            second.process.send_signal(signal.SIGINT)
            assert second.finish() == 0, second.output()
        assert processes_naming(str(first.run_dir)) == []
