"""GPES and the estimators that it equals at the ends of the range of its noise length."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.unspool.outer_trainers.systems import LinearSystem
from unspool.outer_trainers.dodge import DODGE
from unspool.outer_trainers.gpes import GPES
from unspool.outer_trainers.gradient_estimator import OuterState, WorkerWeights
from unspool.outer_trainers.truncated_es_shared_noise import NRES
from unspool.outer_trainers.truncated_step import VectorizedTruncatedStep

LENGTH, WINDOW = 7, 4
STEP = VectorizedTruncatedStep(LinearSystem(LENGTH), 2)
WEIGHTS = WorkerWeights({"theta": jnp.array([0.3, -0.1])}, None, OuterState(jnp.int32(0)))


def gradients(estimator: Any) -> list[np.ndarray]:
    """Five estimates in a row: three episodes begin within them."""
    state, found = estimator.init_worker_state(WEIGHTS, jax.random.PRNGKey(0)), []
    for key in jax.random.split(jax.random.PRNGKey(1), 5):
        out, _ = estimator.compute_gradient_estimate(WEIGHTS, key, state)
        state = out.unroll_state
        found.append(np.asarray(out.grad["theta"]))
    return found


@pytest.fixture(scope="module")
def of_gpes() -> list[np.ndarray]:
    return gradients(GPES(STEP, WINDOW, noise_length=3, std=0.5))


def test_noise_for_longer_than_an_episode_is_shared_noise() -> None:
    one, other = (
        gradients(GPES(STEP, WINDOW, noise_length=50, std=0.5)),
        gradients(NRES(STEP, WINDOW, std=0.5)),
    )
    np.testing.assert_allclose(one, other, rtol=1e-5)


def test_on_linear_losses_it_equals_the_derivative_along_its_noise(of_gpes: list[np.ndarray]) -> None:
    np.testing.assert_allclose(gradients(DODGE(STEP, WINDOW, noise_length=3, std=0.5)), of_gpes, rtol=1e-3)


def test_another_noise_length_is_another_estimate(of_gpes: list[np.ndarray]) -> None:
    other = gradients(GPES(STEP, WINDOW, noise_length=4, std=0.5))
    assert not any(np.allclose(one, two) for one, two in zip(of_gpes, other, strict=True))
