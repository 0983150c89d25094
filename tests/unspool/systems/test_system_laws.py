"""What holds for every system of the library."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import pytest

from tests.unspool.systems.examples import EPISODE_LENGTH, SYSTEMS, TABLES, example, unroll, weights_of
from unspool.experiment import Experiment
from unspool.outer_trainers.dodge import DODGE
from unspool.outer_trainers.gradient_estimator import GradientEstimator
from unspool.outer_trainers.truncated_es import TruncatedES
from unspool.outer_trainers.truncated_grad import TruncatedGrad
from unspool.outer_trainers.truncated_pes import TruncatedPES
from unspool.outer_trainers.truncated_step import TruncatedStep, VectorizedStep, VectorizedTruncatedStep

NUM_TASKS = 3
TRUNCATION = 8  # neither divides an episode nor is divided by it

ESTIMATORS: dict[str, Callable[[VectorizedStep], GradientEstimator]] = {
    "TruncatedPES": lambda step: TruncatedPES(step, TRUNCATION, steps_per_jit=TRUNCATION),
    "TruncatedES": lambda step: TruncatedES(step, TRUNCATION, steps_per_jit=TRUNCATION),
    "DODGE": lambda step: DODGE(step, TRUNCATION),
    "TruncatedGrad": lambda step: TruncatedGrad(step, TRUNCATION, steps_per_jit=TRUNCATION),
}


def theta_of(system: TruncatedStep) -> Any:
    return system.outer_init(jax.random.PRNGKey(0))


def of_arrays(tree: Any) -> Any:
    return jax.tree.map(lambda leaf: jax.typeof(leaf), tree)


@pytest.mark.parametrize("name", TABLES)
def test_the_state_is_a_fixed_point_of_shapes_and_types(name: str) -> None:
    system = example(name)
    state = system.init_step_state(theta_of(system), None, jax.random.PRNGKey(0))
    moved, _ = system.unroll_step(theta_of(system), state, jax.random.PRNGKey(1), None, None)
    assert of_arrays(moved) == of_arrays(state)


@pytest.mark.parametrize("name", TABLES)
def test_an_episode_takes_exactly_its_length(name: str) -> None:
    system = example(name)
    _, out = unroll(system, theta_of(system), 3 * EPISODE_LENGTH)
    assert np.flatnonzero(out.is_done).tolist() == [11, 23, 35]
    assert out.iteration.tolist() == [*range(1, EPISODE_LENGTH + 1)] * 3
    assert set(out.episode_length.tolist()) == {EPISODE_LENGTH}


@pytest.mark.parametrize("name", TABLES)
def test_losses_are_finite_and_an_episode_ends_with_one(name: str) -> None:
    system = example(name)
    _, out = unroll(system, theta_of(system), 3 * EPISODE_LENGTH)
    assert np.all(np.isfinite(out.loss))
    assert np.all(out.mask[out.is_done])


@pytest.mark.parametrize("name", TABLES)
def test_the_same_key_gives_the_same_bits(name: str) -> None:
    system = example(name, stagger=4)
    first, second = (unroll(system, theta_of(system), 36) for _ in range(2))
    jax.tree.map(np.testing.assert_array_equal, first, second)


@pytest.mark.parametrize("name", TABLES)
def test_a_staggered_first_episode_is_shorter_and_the_others_are_not(name: str) -> None:
    system = example(name, stagger=4)
    ends = [np.flatnonzero(unroll(system, theta_of(system), 36, seed)[1].is_done) + 1 for seed in range(12)]
    assert {int(end[0]) for end in ends} == {4, 8, 12}
    assert all(set(np.diff(end).tolist()) == {EPISODE_LENGTH} for end in ends)


@pytest.mark.parametrize("name", [name for name in TABLES if not name.startswith("Pendulum")])
def test_episodes_with_the_same_initial_state_have_the_same_losses(name: str) -> None:
    system = example(name, stagger=4)
    _, out = unroll(system, theta_of(system), 36)
    start = int(np.argmax(out.is_done)) + 1
    unstaggered = unroll(example(name), theta_of(system), 36)[1].loss[:EPISODE_LENGTH]
    np.testing.assert_array_equal(out.loss[start : start + EPISODE_LENGTH], unstaggered)


@pytest.mark.slow
@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("name", SYSTEMS)
def test_every_estimator_unrolls_it(name: str, estimator: str) -> None:
    made = ESTIMATORS[estimator](VectorizedTruncatedStep(example(name), NUM_TASKS))
    weights = weights_of(example(name))
    state = made.init_worker_state(weights, jax.random.PRNGKey(1))
    for key in jax.random.split(jax.random.PRNGKey(2), 2):
        out, _ = made.compute_gradient_estimate(weights, key, state)
        state = out.unroll_state
    assert of_arrays(out.grad) == of_arrays(weights.theta)
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(out.grad))
    assert out.diverged_tasks == 0


@pytest.mark.parametrize("name", TABLES)
def test_a_configuration_can_name_it(name: str) -> None:
    estimator = {"type": "TruncatedPES", "trunc_length": 10, "num_tasks": 4, "truncated_step": TABLES[name]}
    experiment = Experiment.from_tables(
        {
            "seed": 1,
            "outer_steps": 5,
            "aggregation": {"lanes": 2},
            "outer_optimizer": {"type": "sgd", "learning_rate": 1e-3},
            "estimators": [estimator],
        }
    )
    experiment.check()
