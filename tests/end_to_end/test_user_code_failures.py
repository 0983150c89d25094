"""A task of the user's own that raises: its exception and its line reach the person who launched the run."""

import json
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

from tests.end_to_end.launched import command, unspool
from tests.support.experiments import TINY, toml_of
from tests.support.patience import PATIENCE_S

CALLBACK = """
import dataclasses

import jax
import jax.numpy as jnp

from unspool.tasks.base import Task

CALLS = []


def simulate(x):
    CALLS.append(x)
    if len(CALLS) > 20:
        raise RuntimeError("the simulator licence has expired")
    return x


@dataclasses.dataclass(frozen=True)
class Simulated(Task):
    def init(self, key):
        return jnp.ones(3)

    def loss(self, params, key, data):
        loss = jnp.sum(params**2)
        shape = jax.ShapeDtypeStruct((), jnp.float32)
        constant = jax.lax.stop_gradient(loss)
        return loss + 0 * jax.pure_callback(simulate, shape, constant, vmap_method="sequential")


@dataclasses.dataclass(frozen=True)
class Untraceable(Task):
    def init(self, key):
        return {"w": jnp.ones(3)}

    def loss(self, params, key, data):
        return params["weights"].sum()
"""


def line_of(text: str) -> int:
    return next(number for number, line in enumerate(CALLBACK.splitlines(), 1) if text in line)


def folder_with(tmp_path: Path, task: str) -> Path:
    (tmp_path / "my_task.py").write_text(CALLBACK)
    (tmp_path / "run.toml").write_text(
        toml_of(TINY, "outer_steps=200", f"estimators.0.task_family={{type='my_task:{task}'}}")
    )
    return tmp_path


def problems_of(run: str, cwd: Path) -> list[str]:
    status: dict[str, Any] = json.loads(unspool("status", run, "--json", cwd=cwd).stdout or "{}")
    return status.get("problems", [])


def test_an_exception_in_a_running_task_is_reported_with_the_users_line(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, "Simulated")
    error = (
        f"RuntimeError: the simulator licence has expired (my_task.py:{line_of('raise Runtime')} in simulate)"
    )
    launch = subprocess.Popen(
        command("launch", "run.toml", "--backend", "local", "--run-dir", "run"),
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    give_up_at = time.monotonic() + PATIENCE_S
    try:
        while not any(error in problem for problem in problems_of("run", folder)):
            assert launch.poll() is None
            assert time.monotonic() < give_up_at
        events = unspool("events", "run", cwd=folder).stdout
    finally:
        launch.send_signal(signal.SIGINT)
        output, _ = launch.communicate(timeout=PATIENCE_S)
    assert error in events
    assert f"workers end with {error}" in output.splitlines()
    assert error in output.splitlines()[-1]


def test_an_exception_in_tracing_a_task_refuses_the_launch_with_the_users_line(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, "Untraceable")
    done = unspool("launch", "run.toml", "--backend", "local", "--run-dir", "run", cwd=folder)
    assert done.returncode == 2
    assert "KeyError: 'weights'" in done.stderr
    assert f"my_task.py:{line_of('params[')} in loss" in done.stderr
    assert not (folder / "run").exists()
