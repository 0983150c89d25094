"""Runs that come to their last outer step without having trained anything."""

import json
from pathlib import Path

from protos.exit_codes import ExitCode
from tests.end_to_end.launched import unspool
from tests.support.experiments import TINY, toml_of

TASK = """
import dataclasses
import jax.numpy as jnp
from unspool.tasks.base import Task

@dataclasses.dataclass(frozen=True)
class NaNTask(Task):
    def init(self, key):
        return jnp.ones(3)

    def loss(self, params, key, data):
        return jnp.sum(params) * jnp.nan
"""


def test_a_task_that_is_never_finite_is_no_success(tmp_path: Path) -> None:
    (tmp_path / "my_tasks.py").write_text(TASK)
    (tmp_path / "nan.toml").write_text(toml_of(TINY, "estimators.0.task_family={type='my_tasks:NaNTask'}"))
    launched = unspool("launch", "nan.toml", "--backend", "local", "--run-dir", "run", cwd=tmp_path)
    assert launched.returncode == ExitCode.UNTRAINED, launched.stderr
    last = launched.stderr.strip().splitlines()[-1]
    assert last.startswith(
        "unspool: untrained at step 4/4: theta: has not moved at all (4 updates): no gradient"
    )
    status = json.loads(unspool("status", "run", "--json", cwd=tmp_path).stdout)
    assert (status["state"], status["outer_step"]) == ("UNTRAINED", 4)
    assert any(problem.startswith("theta: has not moved at all") for problem in status["problems"])
    again = unspool("launch", "run", "--backend", "local", cwd=tmp_path)
    assert again.returncode == ExitCode.UNTRAINED
