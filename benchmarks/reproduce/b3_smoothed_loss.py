"""The loss of a Lorenz fit as evolution strategies see it: smoothed by perturbations of theta."""

import functools

import jax
import jax.numpy as jnp

from unspool.systems.lorenz import LorenzFit
from unspool.types import PyTree, Scalar, Theta

NUM_PERTURBATIONS = 500


@functools.partial(jax.jit, static_argnums=1)
def smoothed_losses(thetas: Theta, std: float) -> jax.Array:
    """`[a, b]`, of thetas with leaves `[a, b]`: means over the same perturbations for each."""
    noise = std * jax.random.normal(jax.random.PRNGKey(1), (2, NUM_PERTURBATIONS))

    def of_theta(theta: Theta) -> Scalar:
        perturbed = {"log_a": theta["log_a"] + noise[0], "log_r": theta["log_r"] + noise[1]}
        return jnp.mean(jax.vmap(_loss)(perturbed))

    return jax.vmap(jax.vmap(of_theta))(thetas)


def _loss(theta: Theta) -> Scalar:
    """The mean over an episode, whose single losses are not kept: there are many thetas."""
    system, key = LorenzFit(), jax.random.PRNGKey(0)

    def step(_: jax.Array, carry: tuple[PyTree, Scalar]) -> tuple[PyTree, Scalar]:
        state, total = carry
        state, out = system.unroll_step(theta, state, key, None, None)
        return state, total + out.loss

    start = (system.init_step_state(theta, None, key), jnp.float32(0.0))
    return jax.lax.fori_loop(0, system.episode_length, step, start)[1] / system.episode_length
