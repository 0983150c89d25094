"""The objective of evolution strategies for the Lorenz fit: its loss smoothed by perturbations of theta."""

import functools

import jax
import jax.numpy as jnp

from unspool.systems.lorenz import LorenzFit
from unspool.types import PyTree, Scalar, Theta

NUM_PERTURBATIONS = 500


@functools.partial(jax.jit, static_argnums=1)
def smoothed_losses(thetas: Theta, std: float) -> jax.Array:
    """Returns `[a, b]` for thetas with leaves `[a, b]`: means over the same perturbations."""
    noise = std * jax.random.normal(jax.random.PRNGKey(1), (2, NUM_PERTURBATIONS))

    def of_theta(theta: Theta) -> Scalar:
        perturbed = {"log_a": theta["log_a"] + noise[0], "log_r": theta["log_r"] + noise[1]}
        return jnp.mean(jax.vmap(_loss)(perturbed))

    return jax.vmap(jax.vmap(of_theta))(thetas)


def _loss(theta: Theta) -> Scalar:
    """Returns the mean over an episode without storing its losses, because there are many thetas."""
    system, key = LorenzFit(), jax.random.PRNGKey(0)

    def step(_: jax.Array, carry: tuple[PyTree, Scalar]) -> tuple[PyTree, Scalar]:
        state, total = carry
        state, out = system.unroll_step(theta, state, key, None, None)
        return state, total + out.loss

    start = (system.init_step_state(theta, None, key), jnp.float32(0.0))
    return jax.lax.fori_loop(0, system.episode_length, step, start)[1] / system.episode_length
