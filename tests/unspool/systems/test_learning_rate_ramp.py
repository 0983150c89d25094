"""The learning rate ramp: known losses, and its path from start to end."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tests.unspool.systems.examples import unroll
from unspool.systems.learning_rate_ramp import LearningRateRamp, height

KEY = jax.random.PRNGKey(0)


def first_theta(system: Any) -> Any:
    return system.outer_init(KEY)


def test_the_learning_rate_ramp_has_the_known_initial_loss() -> None:
    system = LearningRateRamp()
    _, out = unroll(system, first_theta(system), 100)
    np.testing.assert_allclose(np.sum(out.loss), 2487.8, rtol=1e-4)


def test_the_learning_rate_ramp_has_the_known_optimum() -> None:
    system = LearningRateRamp()

    def total_loss(log_start: jax.Array, log_end: jax.Array) -> jax.Array:
        return jnp.sum(unroll(system, {"log_start": log_start, "log_end": log_end}, 100)[1].loss)

    grid = jnp.meshgrid(jnp.linspace(2.0, 3.5, 61), jnp.linspace(-5.0, -3.0, 41))
    lowest = jnp.min(jax.vmap(jax.vmap(total_loss))(*grid))
    np.testing.assert_allclose(lowest, 556.7, rtol=0.01)


def test_the_learning_rate_ramp_goes_from_its_start_to_its_end() -> None:
    state, _ = unroll(LearningRateRamp(episode_length=4), {"log_start": -3.0, "log_end": -1.0}, 3)
    point = jnp.ones(2)
    for share in (0.0, 0.25, 0.5):
        rate = (1 - share) * jnp.exp(-3.0) + share * jnp.exp(-1.0)
        point = point - rate * jax.grad(height)(point)
    np.testing.assert_allclose(state.point, point, rtol=1e-6)
