"""A learner that is killed, frozen, started twice, fed nonsense, or finds its own files damaged."""

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from protos.exit_codes import ExitCode
from tests.faults import ledger
from tests.faults.configs import LANES, one_hot_toml
from tests.faults.ledger import assert_exactly_once
from tests.faults.processes import FaultyRun, lanes_of, state_of
from tests.support.patience import PATIENCE_S

pytestmark = [pytest.mark.end_to_end, pytest.mark.slow]


@pytest.fixture
def run(make_run: Callable[..., FaultyRun]) -> FaultyRun:
    run = make_run(one_hot_toml(outer_steps=3000, ballast=100))
    run.start("w0", "w1")
    run.wait_for_step(12)
    return run


def test_workers_outlive_a_killed_learner_and_nothing_counts_twice(run: FaultyRun) -> None:
    run.kill("learner")
    run.start_learner()
    resumed = run.wait_for(lambda status: len(status["workers"]) == 2)
    assert resumed["term"] == 2
    run.wait_for_step(resumed["outer_step"] + 3)
    assert not run.has_ended("w0")
    assert not run.has_ended("w1")
    assert_exactly_once(run)


def test_a_frozen_learner_continues_where_it_was(run: FaultyRun) -> None:
    before = run.status()
    run.signal("learner", signal.SIGSTOP)
    log = run.directory.log_path("w0")
    assert run.status() == {}  # it does not answer, and the deadline of the call is long past a lease
    run.signal("learner", signal.SIGCONT)
    run.wait_for(lambda status: all(state_of(status, name) == "active" for name in ("w0", "w1")))
    after = run.wait_for_step(before["outer_step"] + 20)
    assert after["term"] == before["term"]
    assert "Traceback" not in log.read_text()
    assert_exactly_once(run)


def test_a_second_learner_is_refused_and_the_first_continues(run: FaultyRun) -> None:
    first = run.processes["learner"]
    run.start_learner()
    assert run.exit_code("learner") == 73
    run.processes["learner"] = first
    run.wait_for_step(run.status()["outer_step"] + 3)
    assert_exactly_once(run)


def test_a_frozen_learner_still_holds_its_run(run: FaultyRun) -> None:
    first = run.processes["learner"]
    run.signal("learner", signal.SIGSTOP)
    run.start_learner()
    assert run.exit_code("learner") == 73
    run.processes["learner"] = first
    run.signal("learner", signal.SIGCONT)
    run.wait_for_step(run.status()["outer_step"] + 3)
    assert_exactly_once(run)


def test_a_frozen_learner_whose_run_is_taken_over_finds_itself_fenced(run: FaultyRun) -> None:
    frozen, before = run.processes["learner"], run.status()
    run.signal("learner", signal.SIGSTOP)
    run.listen()  # the frozen one keeps its port
    run.start_learner(takeover=True)
    run.start_worker("w2")
    taken = run.wait_for(lambda status: lanes_of(status, "w2"))
    assert taken["term"] > before["term"]
    os.kill(frozen.pid, signal.SIGCONT)
    frozen.join(PATIENCE_S)
    assert frozen.exitcode == ExitCode.FENCED
    run.wait_for_step(run.status()["outer_step"] + 10)
    assert_exactly_once(run)


def flip_a_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0x10
    path.write_bytes(data)


def tear(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


@pytest.mark.parametrize("damage", [flip_a_byte, tear])
@pytest.mark.parametrize("what", ["checkpoints/step-*", "lanes/*/seq-*"])
def test_a_damaged_file_costs_one_checkpoint_and_is_named(
    run: FaultyRun, damage: Callable[[Path], None], what: str
) -> None:
    run.wait_for(lambda status: (status.get("checkpoint") or {}).get("outer_step", 0) >= 20)
    for name in ("learner", "w0", "w1"):
        run.kill(name)
    newest = ledger.newest_checkpoint(run)
    step = int(newest.stem.removeprefix("step-"))
    damaged = newest if "step" in what else run.path / f"lanes/1/seq-{step:08d}.safetensors"
    assert damaged in run.path.glob(what), sorted(run.path.glob(what))
    damage(damaged)
    run.start("w0", "w1")
    resumed = run.wait_for(lambda status: status["term"] == 2)
    run.wait_for_event("checkpoint_passed_over", newest.name)
    assert newest.with_name(f"{newest.name}.corrupt").exists()
    run.wait_for_step(max(step, resumed["outer_step"]) + 3)
    assert_exactly_once(run)


@pytest.mark.parametrize("value", ["nan", "inf", "3e38"])
def test_what_is_not_finite_never_reaches_theta(make_run: Callable[..., FaultyRun], value: str) -> None:
    run = make_run(one_hot_toml(outer_steps=20, bad_seq=7, bad_value=value))
    run.start("w0", "w1")
    assert run.exit_code("learner") == 0, run.logs()
    counts = ledger.applied(run)
    assert counts[:, 6].max() == 0.0
    assert int(counts.sum()) == LANES * 19
    assert ledger.watermarks(run) == [20] * LANES
    assert {run.exit_code("w0"), run.exit_code("w1")} == {0}
