"""B1 and B3 through the service: two workers in `sync` reproduce a loop in one process bit for bit.

`python -m benchmarks.reproduce.through_service CONFIG` prints the losses and the theta of that loop.
"""

import csv
import functools
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from matplotlib.axes import Axes

from benchmarks.reproduce.report import Result, Row
from service.evaluation.trained import load_trained
from unspool.experiment import Experiment
from unspool.outer_trainers.gradient_learner import SingleMachineGradientLearner
from unspool.types import Theta

NAME = "Through the service"

CONFIG = """
seed = 0
outer_steps = {outer_steps}

[outer_optimizer]
type = "sgd"
learning_rate = {learning_rate}

[aggregation]
mode = "sync"
lanes = 2

[[estimators]]
type = "NRES"
unroll_length = {truncation}
std = {std}
num_tasks = 100
truncated_step = {system}

[checkpoint]
every = 100
"""
SETTINGS = {
    "B1, influence balancing": {
        "learning_rate": 1e-4,
        "truncation": 1,
        "std": 0.1,
        "system": '{ type = "InfluenceBalancing" }',
    },
    "B3, Lorenz system": {
        "learning_rate": 1e-5,
        "truncation": 100,
        "std": 0.04,
        "system": '{ type = "LorenzFit", stagger = 100 }',
    },
}
_NOTES = """\
The estimator is `NRES` with 2 lanes of 100 antithetic pairs. The table compares a run launched with
`--backend local --workers 2` in `sync` (its `metrics/outer.csv`, and the theta of its last checkpoint)
with `SingleMachineGradientLearner` over the same lanes in one process. Both use one thread of XLA, so
they must be equal to the bit. The loss is that of the estimates."""
# The bits depend on the number of XLA's threads; the processes of the service have one by default.
_ENVIRONMENT = {**os.environ, "PJRT_NPROC": "1", "JAX_PLATFORMS": "cpu"}


class Training(NamedTuple):
    """The result of a configuration.

    Attributes:
        losses: of each outer step.
        theta: at the end, by the paths of its leaves.
    """

    losses: list[float]
    theta: dict[str, list[float]]


def run(quick: bool) -> Result:
    """Trains on both systems in both ways; `quick` uses fewer outer steps."""
    outer_steps = 40 if quick else 500
    pairs = {name: _both_ways(name, outer_steps) for name in SETTINGS}
    rows = [_row(name, *pair) for name, pair in pairs.items()]
    columns = ("experiment", "loss of the first and the last 20 steps", "largest difference of losses")
    return Result("B1 and B3 through the service", columns, rows, functools.partial(_draw, pairs), _NOTES)


def config_text(name: str, outer_steps: int) -> str:
    """The configuration of one of `SETTINGS`."""
    return CONFIG.format(outer_steps=outer_steps, **SETTINGS[name])


def trained_by_service(config: Path, run_dir: Path, num_workers: int = 2) -> Training:
    """Runs `config` with the service."""
    command = [sys.executable, "-m", "service", "launch", str(config), "--run-dir", str(run_dir)]
    options = ["--backend", "local", "--workers", str(num_workers)]
    subprocess.run([*command, *options], env=_ENVIRONMENT, check=True, capture_output=True)
    with (run_dir / "metrics/outer.csv").open(newline="") as file:
        losses = [float(row["loss"]) for row in csv.DictReader(file)]
    return Training(losses, _by_path(load_trained(str(run_dir)).theta))


def trained_in_process(config: Path) -> Training:
    """Runs `config` with the loop, in a separate process because of its number of threads."""
    command = [sys.executable, "-m", __name__, str(config)]
    done = subprocess.run(command, env=_ENVIRONMENT, check=True, capture_output=True, text=True)
    return Training(**json.loads(done.stdout))


def _both_ways(name: str, outer_steps: int) -> tuple[Training, Training]:
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "config.toml"
        config.write_text(config_text(name, outer_steps))
        return trained_by_service(config, Path(folder) / "run"), trained_in_process(config)


def _row(name: str, by_service: Training, in_process: Training) -> Row:
    one, other = np.array(by_service.losses), np.array(in_process.losses)
    difference = float(np.max(np.abs(one - other))) if one.shape == other.shape else np.inf
    cells = (name, f"{np.mean(one[:20]):.4g}, {np.mean(one[-20:]):.4g}", f"{difference:g}")
    return Row(cells, "losses and theta equal to the bit", by_service == in_process)


def _draw(pairs: dict[str, tuple[Training, Training]], axes: Axes) -> None:
    for name, (by_service, in_process) in pairs.items():
        axes.plot(in_process.losses, linewidth=3, alpha=0.4, label=f"{name}: in process")
        axes.plot(by_service.losses, linewidth=0.8, label=f"{name}: two workers")
    axes.set(xlabel="outer step", ylabel="loss of the estimates", yscale="log")
    axes.legend(fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))


def _in_this_process(config: Path) -> Training:
    experiment = Experiment.from_toml(config.read_text())
    estimators = [experiment.estimator(lane) for lane in range(experiment.lanes)]
    learner = SingleMachineGradientLearner(experiment.init, estimators, experiment.outer_optimizer)
    key = jax.random.PRNGKey(experiment.seed)
    state, losses = learner.init(key), []
    for _ in range(experiment.outer_steps):
        state, loss, _ = learner.update(state, key)
        losses.append(float(loss))
    return Training(losses, _by_path(learner.get_meta_params(state)))


def _by_path(theta: Theta) -> dict[str, Any]:
    leaves = jax.tree_util.tree_leaves_with_path(theta)
    return {jax.tree_util.keystr(path): np.asarray(leaf).tolist() for path, leaf in leaves}


if __name__ == "__main__":
    print(json.dumps(_in_this_process(Path(sys.argv[1]))._asdict()))
