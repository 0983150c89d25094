"""Theta is a function of the configuration, by SHA-256 after 50 outer steps, whichever processes are killed.

`tests/end_to_end/test_determinism.py` has the same with a learned optimizer, as a user launches it.
"""

from collections.abc import Callable
from pathlib import Path

import pytest

from learner.storage.checkpoint import read_header
from protos.unspool.v1.admin_pb2 import DrainRequest
from tests.end_to_end.launched import in_process_digest
from tests.faults.ledger import newest_checkpoint
from tests.faults.processes import FaultyRun, lanes_of

pytestmark = [pytest.mark.end_to_end, pytest.mark.slow]

CONFIG = """
seed = 5
outer_steps = 50
learned_optimizer = { type = "LearnableAdam" }
outer_optimizer = { type = "adam", learning_rate = 0.01 }
aggregation = { lanes = 4 }
checkpoint = { every = 7 }
liveness = { heartbeat_s = 0.25, patience = 4 }

[[estimators]]
type = "TruncatedPES"
trunc_length = 100
num_tasks = 16
truncation_schedule = { type = "LogUniformLengthSchedule", min_length = 50, max_length = 400 }
task_family = { type = "FixedDimQuadraticFamily", dim = 10 }
"""


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The digest of the loop in one process, without learner or workers."""
    config = tmp_path_factory.mktemp("expected") / "config.toml"
    config.write_text(CONFIG)
    return in_process_digest(Path(config))


def digest_at_the_end(run: FaultyRun) -> str:
    assert run.exit_code("learner") == 0, run.logs()
    header = read_header(newest_checkpoint(run))
    assert header["outer_step"] == 50
    return header["theta_sha256"]


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_theta_does_not_depend_on_the_number_of_workers(
    make_run: Callable[..., FaultyRun], expected: str, workers: int
) -> None:
    run = make_run(CONFIG)
    run.start(*(f"w{number}" for number in range(workers)))
    assert digest_at_the_end(run) == expected


def kill_workers(run: FaultyRun) -> None:
    for step, name in ((5, "w0"), (12, "w1"), (20, "w0"), (31, "w1")):
        run.wait_for_step(step)
        run.kill(name)
        run.start_worker(name)


def kill_learners(run: FaultyRun) -> None:
    for step in (6, 13, 21, 34):
        run.wait_for_step(step)
        run.kill("learner")
        run.start_learner()


def kill_everybody(run: FaultyRun) -> None:
    for step in (9, 24):
        run.wait_for_step(step)
        for name in ("w0", "learner", "w1"):
            run.kill(name)
        run.start("w0", "w1")


def scale_and_kill(run: FaultyRun) -> None:
    """2, 3, 1 and 2 workers, the last ones under another learner."""
    run.wait_for_step(4)
    run.start_worker("w2")
    run.wait_for(lambda status: status["outer_step"] >= 10 and lanes_of(status, "w2"))
    with run.admin() as admin:
        for name in ("w0", "w1"):
            admin.ask(DrainRequest(worker_name=name, deadline_s=60.0, reason="scaled down"))
    assert (run.exit_code("w0"), run.exit_code("w1")) == (0, 0)
    run.kill("learner")
    run.start("w0")


@pytest.mark.parametrize("disturb", [kill_workers, kill_learners, kill_everybody, scale_and_kill])
def test_theta_does_not_depend_on_what_happened(
    make_run: Callable[..., FaultyRun], expected: str, disturb: Callable[[FaultyRun], None]
) -> None:
    run = make_run(CONFIG)
    run.start("w0", "w1")
    disturb(run)
    assert digest_at_the_end(run) == expected
