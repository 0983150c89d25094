"""A learner that applies nothing: workers wait within bounds, report the reason, and continue afterwards."""

import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from protos.unspool.v1.admin_pb2 import PauseRequest, ResumeRequest
from tests.faults.configs import LANES, one_hot_toml
from tests.faults.ledger import assert_exactly_once
from tests.faults.processes import FaultyRun, Status, state_of, until

pytestmark = [pytest.mark.end_to_end, pytest.mark.slow]

_STALL_S = 30.0
_FLAT_BYTES = 8 << 20
_SPARE_THREADS = 8  # pools start threads as they need them, and keep them


def resident_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096


def threads(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/task").iterdir()))


def are_idle(status: Status, reason: str) -> bool:
    """Whether both workers wait, and for that."""
    workers = status["workers"]
    return len(workers) == 2 and all(
        worker["phase"] == "idle" and worker["waiting_for"].startswith(reason) for worker in workers
    )


@pytest.mark.parametrize(("mode", "reason"), [("sync", "outer step"), ("async", "a credit")])
def test_workers_of_a_learner_that_applies_nothing_report_what_they_wait_for(
    make_run: Callable[..., FaultyRun], mode: str, reason: str
) -> None:
    run = make_run(one_hot_toml(outer_steps=3000, mode=mode, ballast=1000))
    run.start("w0", "w1")
    run.wait_for_step(5)
    with run.admin() as admin:
        admin.ask(PauseRequest())
        room = LANES * run.config.aggregation.credits_per_lane
        idle = run.wait_for(lambda status: are_idle(status, reason) and status["buffered"] == room)
        later = run.wait_for(lambda status: status["elapsed_s"] > idle["elapsed_s"] + 2)
        assert (later["buffered"], later["outer_step"]) == (room, idle["outer_step"])
        admin.ask(ResumeRequest())
    run.wait_for_step(idle["outer_step"] + 5)


def test_a_learner_that_is_stopped_for_half_a_minute_costs_neither_memory_nor_threads(
    make_run: Callable[..., FaultyRun],
) -> None:
    run = make_run(one_hot_toml(outer_steps=3000, mode="async", ballast=10_000))
    run.start("w0", "w1")
    run.wait_for_step(20)
    pids = {name: process.pid for name, process in run.processes.items()}
    before, busy = {name: resident_bytes(pid) for name, pid in pids.items()}, threads(pids["learner"])
    run.signal("learner", signal.SIGSTOP)
    until_s = time.monotonic() + _STALL_S
    until(lambda: time.monotonic() >= until_s)
    for name, pid in pids.items():
        assert resident_bytes(pid) < before[name] + _FLAT_BYTES, name
    run.signal("learner", signal.SIGCONT)
    run.wait_for(lambda status: all(state_of(status, name) == "active" for name in ("w0", "w1")))
    after = run.wait_for_step(run.status()["outer_step"] + 10)
    assert after["term"] == 1
    assert threads(pids["learner"]) <= busy + _SPARE_THREADS
    run.start_worker("w2")  # there is a handler for one more
    run.wait_for(lambda status: state_of(status, "w2") == "active")
    assert_exactly_once(run)
