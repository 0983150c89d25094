"""When noise is drawn, and which noise multiplies a loss: against a loop over steps in numpy."""

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.unspool.outer_trainers.systems import DECAY, LinearSystem
from unspool.outer_trainers.gpes import GPES
from unspool.outer_trainers.gradient_estimator import GradientEstimator, OuterState, WorkerWeights
from unspool.outer_trainers.truncated_es_shared_noise import NRES
from unspool.outer_trainers.truncated_step import VectorizedTruncatedStep

WINDOW, LENGTH, TASKS, ESTIMATES = 4, 7, 2, 6
STEP = VectorizedTruncatedStep(LinearSystem(LENGTH), TASKS)  # a reset follows an episode: eight steps
WEIGHTS = WorkerWeights({"theta": jnp.array([0.3, -0.1])}, None, OuterState(jnp.int32(0)))
ESTIMATORS = {
    "new noise every 3 steps": GPES(STEP, WINDOW, noise_length=3, std=0.5),
    "new noise every 8 steps": GPES(STEP, WINDOW, noise_length=8, std=0.5),
    "one noise per episode": NRES(STEP, WINDOW, std=0.5),
}


@pytest.fixture(scope="module", params=ESTIMATORS)
def run(request: pytest.FixtureRequest) -> tuple[GradientEstimator, list[Any], list[Any]]:
    """An estimator, its states before each of several estimates, and the estimates."""
    estimator: GradientEstimator = ESTIMATORS[request.param]
    state, outs = estimator.init_worker_state(WEIGHTS, jax.random.PRNGKey(0)), []
    states = [state]
    for key in jax.random.split(jax.random.PRNGKey(1), ESTIMATES):
        out, _ = estimator.compute_gradient_estimate(WEIGHTS, key, states[-1])
        outs.append(out)
        states.append(out.unroll_state)
    return estimator, states, outs


def age_at(step: int) -> int:
    """The steps since the start of an episode, of which the reset after the last loss is the first."""
    return step if step < LENGTH else (step - LENGTH) % (LENGTH + 1)


def test_the_age_counts_the_steps_of_an_episode_with_its_reset(run: Any) -> None:
    _, states, _ = run
    expected = [[age_at(index * WINDOW)] * TASKS for index in range(ESTIMATES + 1)]
    assert [state.age.tolist() for state in states] == expected


def test_the_key_of_the_noise_changes_exactly_when_noise_is_drawn(run: Any) -> None:
    estimator, states, _ = run
    interval = getattr(estimator, "noise_length", LENGTH + 1)
    for index, (before, after) in enumerate(itertools.pairwise(states)):
        ages = [age_at(index * WINDOW + step) for step in range(WINDOW)]
        drawn = any(age % interval == 0 for age in ages)
        assert np.array_equal(before.noise_key, after.noise_key) is not drawn


def test_tasks_have_noise_of_their_own(run: Any) -> None:
    _, states, _ = run
    for state in states:
        assert not np.array_equal(state.noise_key[0], state.noise_key[1])


def test_both_members_of_a_pair_are_at_the_same_step_of_their_episode(run: Any) -> None:
    _, states, _ = run
    for state in states:
        np.testing.assert_array_equal(state.pos_state.step, state.neg_state.step)
        np.testing.assert_array_equal(state.pos_state.is_done, state.neg_state.is_done)


def test_only_noise_that_is_redrawn_within_an_episode_is_accumulated() -> None:
    kept = {
        name: estimator.init_worker_state(WEIGHTS, jax.random.PRNGKey(0)).accumulator is not None
        for name, estimator in ESTIMATORS.items()
    }
    assert list(kept.values()) == [True, True, False]


def test_the_first_estimate_is_the_formula_of_stein_on_a_linear_system() -> None:
    """Losses are linear in theta, so differences are twice the derivative along the noise."""
    estimator = ESTIMATORS["one noise per episode"]
    state = estimator.init_worker_state(WEIGHTS, jax.random.PRNGKey(0))
    out, _ = estimator.compute_gradient_estimate(WEIGHTS, jax.random.PRNGKey(1), state)
    pairs = estimator.pairs  # type: ignore[attr-defined]
    noise = np.asarray(pairs.perturbations.sample(WEIGHTS.theta, out.unroll_state.noise_key)["theta"])
    slopes = np.zeros((WINDOW, 2))
    for t in range(WINDOW):
        slopes[t] = DECAY * (slopes[t - 1] if t else 0) + np.array([1.0, t + 1])
    delta = 2 * noise @ slopes.mean(axis=0)
    expected = np.mean(noise * delta[:, None] / (2 * 0.5**2), axis=0)
    fraction = STEP.episodes(None).loss_fraction
    np.testing.assert_allclose(out.grad["theta"], expected / fraction, rtol=1e-4)
