"""Prints the updates per second of a configuration's lanes in one process, on all of its devices.

`python -m benchmarks.in_process CONFIG WARM_UP`
"""

import sys
import time
from pathlib import Path

import jax

from unspool.device_mesh import task_mesh
from unspool.experiment import Experiment
from unspool.outer_trainers.gradient_learner import SingleMachineGradientLearner


def main(config: str, warm_up: str) -> None:
    """Computes all outer steps of the configuration; the first `warm_up` are not timed."""
    experiment = Experiment.from_toml(Path(config).read_text())
    estimators = [experiment.estimator(lane) for lane in range(experiment.lanes)]
    mesh = task_mesh(jax.devices()) if jax.device_count() > 1 else None
    learner = SingleMachineGradientLearner(experiment.init, estimators, experiment.outer_optimizer, mesh=mesh)
    key = jax.random.PRNGKey(experiment.seed)
    state, start = learner.init(key), 0.0
    for step in range(experiment.outer_steps):
        if step == int(warm_up):
            start = time.perf_counter()
        state, loss, _ = learner.update(state, key)
        jax.block_until_ready(loss)
    print((experiment.outer_steps - int(warm_up)) / (time.perf_counter() - start))


if __name__ == "__main__":
    main(*sys.argv[1:])
