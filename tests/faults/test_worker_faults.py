"""Workers that are killed, frozen, or fail: their lanes move, and every estimate counts once."""

import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from protos.unspool.v1.admin_pb2 import ResetLaneRequest
from tests.faults.configs import LANES, one_hot_toml, with_poisoned_lanes
from tests.faults.ledger import assert_exactly_once
from tests.faults.processes import FaultyRun, lanes_of, state_of

pytestmark = [pytest.mark.end_to_end, pytest.mark.slow]


def started(make_run: Callable[..., FaultyRun], **options: object) -> FaultyRun:
    run = make_run(one_hot_toml(outer_steps=3000, **options))
    run.start("w0", "w1")
    run.wait_for(lambda status: len(lanes_of(status, "w0")) == len(lanes_of(status, "w1")) == 2)
    return run


def test_a_killed_workers_lanes_go_to_others_when_its_lease_ends(make_run: Callable[..., FaultyRun]) -> None:
    run = started(make_run)
    run.kill("w0")
    run.wait_for(lambda status: state_of(status, "w0") == "suspect")
    alone = run.wait_for(lambda status: len(lanes_of(status, "w1")) == LANES)
    assert state_of(alone, "w0") == "gone"
    run.wait_for_step(alone["outer_step"] + 3)
    assert_exactly_once(run)


def test_a_killed_worker_that_is_restarted_has_its_lanes_at_once(
    make_run: Callable[..., FaultyRun],
) -> None:
    run = started(make_run, heartbeat_s=20.0)  # no lease ends within this test
    run.kill("w0")
    run.start_worker("w0")
    run.wait_for_event("a newer process of this worker joined")
    after = run.wait_for(lambda status: len(lanes_of(status, "w0")) == 2)
    run.wait_for_step(after["outer_step"] + 3)
    assert_exactly_once(run)


def test_a_frozen_worker_is_suspected_then_replaced_and_fenced_when_it_thaws(
    make_run: Callable[..., FaultyRun],
) -> None:
    run = started(make_run)
    run.signal("w0", signal.SIGSTOP)
    run.wait_for(lambda status: state_of(status, "w0") == "suspect" and len(lanes_of(status, "w0")) == 2)
    alone = run.wait_for(lambda status: len(lanes_of(status, "w1")) == LANES)
    run.wait_for_step(alone["outer_step"] + 3)
    run.signal("w0", signal.SIGCONT)
    again = run.wait_for(lambda status: len(lanes_of(status, "w0")) == 2)
    run.wait_for_step(again["outer_step"] + 3)
    assert_exactly_once(run)


def test_an_estimate_that_raises_ends_its_worker_with_the_traceback_in_the_event_log(
    make_run: Callable[..., FaultyRun], tmp_path: Path
) -> None:
    trouble = tmp_path / "trouble"
    run = started(make_run, raises_while=str(trouble))
    trouble.touch()
    assert {run.exit_code("w0"), run.exit_code("w1")} == {70}
    run.wait_for_event("this estimate was told to fail", "ArithmeticError")
    trouble.unlink()
    before = run.wait_for(lambda status: not status["workers"])
    run.start_worker("w0")
    run.wait_for_step(before["outer_step"] + 3)
    assert_exactly_once(run)


def restarted(run: FaultyRun) -> bool:
    """Restart a worker that has failed, as a supervisor does. Always true."""
    if run.has_ended("w0"):
        assert run.exit_code("w0") == 70
        run.start_worker("w0")
    return True


def test_lanes_that_end_every_worker_are_quarantined_and_the_run_waits_for_a_reset(
    make_run: Callable[..., FaultyRun], tmp_path: Path
) -> None:
    trouble = tmp_path / "trouble"
    run = make_run(with_poisoned_lanes(one_hot_toml(outer_steps=3000, workers=1), trouble))
    run.start("w0")
    run.wait_for_step(5)
    trouble.touch()
    held = run.wait_for(lambda status: restarted(run) and lanes_of(status, "w0") == [0, 2])
    assert [lane["state"] for lane in held["lanes"]] == ["granted", "quarantined", "granted", "quarantined"]
    assert "told to fail" in held["lanes"][1]["problem"]
    trouble.unlink()
    with run.admin() as admin:
        for lane in (1, 3):
            admin.ask(ResetLaneRequest(lane=lane))
    run.wait_for(lambda status: restarted(run) and status["outer_step"] >= held["outer_step"] + 5)
    assert_exactly_once(run)
