"""Workers that divide each lane's tasks among two devices give the theta of one process that does."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from service.run.environments import device_environment
from tests.end_to_end.launched import launched, unspool
from tests.support.experiments import QUADRATIC, toml_of
from workers.bootstrap import Devices

pytestmark = [pytest.mark.end_to_end, pytest.mark.slow]

OVERRIDES = (
    "outer_steps=6",
    "learned_optimizer.type=LearnableAdam",
    "outer_optimizer={type='adam', learning_rate=0.01}",
    "estimators.0.num_tasks=4",
    "estimators.0.truncation_schedule={type='LogUniformLengthSchedule', min_length=5, max_length=25}",
    "checkpoint.every=2",
)

IN_PROCESS = """
import json, sys, jax, numpy as np
from pathlib import Path
from unspool import serialization
from unspool.device_mesh import task_mesh
from unspool.experiment import Experiment
from unspool.outer_trainers.gradient_learner import SingleMachineGradientLearner

experiment = Experiment.from_toml(Path(sys.argv[1]).read_text())
estimators = [experiment.estimator(lane) for lane in range(experiment.lanes)]
key = jax.random.PRNGKey(experiment.seed)
thetas = []
for mesh in (None, task_mesh(jax.devices())):
    learner = SingleMachineGradientLearner(
        experiment.init, estimators, experiment.outer_optimizer, mesh=mesh
    )
    state = learner.init(key)
    for _ in range(experiment.outer_steps):
        state, _, _ = learner.update(state, key)
    thetas.append(jax.device_get(learner.get_meta_params(state)))
one, two = (np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(theta)]) for theta in thetas)
difference = float(np.linalg.norm(one - two) / np.linalg.norm(one))
print(json.dumps({"digest": serialization.digest(thetas[1]), "difference": difference}))
"""


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("devices") / "quadratics.toml"
    path.write_text(toml_of(QUADRATIC, *OVERRIDES))
    return path


@pytest.fixture(scope="module")
def in_process(config: Path) -> dict[str, Any]:
    """What one process with two devices computes."""
    environment = os.environ | device_environment(Devices(cpu_threads=1, cpu_devices=2))
    program = [sys.executable, "-c", IN_PROCESS, str(config)]
    done = subprocess.run(program, env=environment, check=True, capture_output=True, text=True)
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def test_two_devices_give_the_theta_of_one_up_to_rounding(in_process: dict[str, Any]) -> None:
    assert in_process["difference"] < 1e-4


def test_workers_with_two_devices_give_the_bits_of_one_process_with_two(
    config: Path, in_process: dict[str, Any], tmp_path: Path
) -> None:
    options = ["--backend", "local", "--workers", "2", "--set", "workers.devices=2"]
    with launched(config, tmp_path / "run", *options) as run:
        assert run.finish() == 0, run.output()
        assert run.digest() == in_process["digest"]


def test_a_run_is_not_resumed_with_another_number_of_devices(config: Path, tmp_path: Path) -> None:
    options = [config, "--run-dir", tmp_path / "run", "--backend", "local", "--set", "outer_steps=1"]
    assert unspool("launch", *options).returncode == 0
    refused = unspool("launch", *options, "--set", "workers.devices=2")
    assert refused.returncode == 2
    assert "workers.devices changed" in refused.stderr
