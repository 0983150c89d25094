"""Recovery times: from the kill of a worker to new estimates of its lanes, or of the learner to an update.

`unspool launch` starts the run with the local backend and a supervisor; processes are killed with SIGKILL.
"""

import dataclasses
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from protos.exit_codes import LearnerUnreachableError, RunNotFoundError
from protos.unspool.v1 import admin_pb2, learner_pb2
from service.run.client import connected
from service.run.run_directory import find_run

KILLS = 3
DEADLINE_S = 120.0
_POLL_S = 0.02
_SETTLE_S = 3.0
_CONFIG = """
seed = 0
outer_steps = 1000000

[learned_optimizer]
type = "LearnableSGD"

[outer_optimizer]
type = "adam"
learning_rate = 1e-3

[aggregation]
mode = "sync"
lanes = 4

[checkpoint]
every = 50

[workers]
count = 2

[[estimators]]
type = "TruncatedPES"
trunc_length = 50
num_tasks = 16
truncation_schedule = { type = "ConstantTruncationSchedule", total_length = 100 }
task_family = { type = "FixedDimQuadraticFamily", dim = 10 }
"""


@dataclasses.dataclass(frozen=True)
class Recovery:
    """Recovery time in seconds after each kill."""

    what: str
    seconds: tuple[float, ...]

    def __str__(self) -> str:
        """Returns one line."""
        each = ", ".join(f"{one:.1f}" for one in self.seconds)
        return f"{self.what:<55} median {statistics.median(self.seconds):5.1f} s   ({each})"


def after_kills(seconds: float) -> Iterator[Recovery]:
    """Kills workers and the learner of one run several times; `seconds` is ignored."""
    del seconds
    with tempfile.TemporaryDirectory() as folder:
        config, run_dir = Path(folder) / "recovery.toml", Path(folder) / "run"
        config.write_text(_CONFIG)
        command = [sys.executable, "-m", "service"]
        options = ["--backend", "local", "--run-dir", str(run_dir), "--detach"]
        subprocess.run([*command, "launch", str(config), *options], check=True, capture_output=True)
        try:
            run = str(run_dir)
            _await(run, lambda status: status.outer_step > 0 and len(status.workers) == 2)
            workers = tuple(worker_killed(run) for _ in range(KILLS))
            yield Recovery("worker killed -> new estimates of all of its lanes", workers)
            learners = tuple(learner_killed(run) for _ in range(KILLS))
            yield Recovery("learner killed -> first update after its restart", learners)
        finally:
            subprocess.run([*command, "stop", str(run_dir), "--now"], check=False, capture_output=True)


def worker_killed(run: str) -> float:
    """Kills a worker that has lanes; returns the seconds until each of them has another estimate."""
    time.sleep(_SETTLE_S)
    status = _await(run, lambda status: all(worker.lanes for worker in status.workers))
    victim = status.workers[0]
    os.kill(victim.pid, signal.SIGKILL)
    start = time.perf_counter()
    lost = {lane: _seq(status, lane) for lane in victim.lanes}
    fencing_tokens = {lane.lane: lane.fencing_token for lane in status.lanes}
    _await(
        run,
        lambda now: all(
            now.lanes[lane].fencing_token != fencing_tokens[lane] and _seq(now, lane) > seq
            for lane, seq in lost.items()
        ),
    )
    return time.perf_counter() - start


def learner_killed(run: str) -> float:
    """Kills the learner; returns the seconds until the first update after its restart."""
    time.sleep(_SETTLE_S)
    term = _await(run, lambda status: status.state == "RUNNING").term
    os.kill(find_run(run).endpoints().pid, signal.SIGKILL)
    start = time.perf_counter()
    applied = learner_pb2.Verdict.Name(learner_pb2.APPLIED)
    _await(run, lambda status: status.term > term and status.verdicts[applied] > 0)
    return time.perf_counter() - start


def _seq(status: admin_pb2.Status, lane: int) -> Any:
    return status.lanes[lane].seq


def _await(run: str, holds: Callable[[admin_pb2.Status], bool]) -> admin_pb2.Status:
    """Returns the first status for which `holds` is true."""
    end = time.perf_counter() + DEADLINE_S
    while time.perf_counter() < end:
        try:
            with connected(find_run(run)) as admin:
                while time.perf_counter() < end:
                    status = admin.status()
                    if holds(status):
                        return status
                    time.sleep(_POLL_S)
        except (LearnerUnreachableError, RunNotFoundError):
            time.sleep(_POLL_S)
    raise TimeoutError(f"{run}: the expected status did not appear within {DEADLINE_S:.0f} s")
