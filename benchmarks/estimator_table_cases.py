"""The three systems on which estimators are measured, and their exact gradients."""

from collections.abc import Callable
from typing import NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from benchmarks.reproduce.samples import Array, exact_gradient, mean_loss
from unspool.outer_trainers.truncated_step import TruncatedStep
from unspool.systems.influence_balancing import InfluenceBalancing
from unspool.systems.lorenz import LorenzFit
from unspool.systems.pendulum import PendulumSwingUp
from unspool.types import PRNGKey, Theta

_INITIAL_STATES = 16_384
_PAIRS, _PAIRS_AT_A_TIME = 1 << 18, 1 << 12
_GRID_WIDTH, _GRID_STDS = 200, 5.0


class Case(NamedTuple):
    """One system.

    Attributes:
        name: the heading of its columns.
        system: the unrolled system.
        num_steps: length of an episode.
        truncation: inner steps per estimate of the online estimators.
        noise_length: for GPES.
        std: of the noise.
        gradient: of the loss.
        smoothed_gradient: of the loss smoothed by one noise per episode.
    """

    name: str
    system: TruncatedStep
    num_steps: int
    truncation: int
    noise_length: int
    std: float
    gradient: Callable[[], Array]
    smoothed_gradient: Callable[[], Array]

    @property
    def theta(self) -> Theta:
        """The theta at which the gradient is estimated."""
        return self.system.outer_init(jax.random.key(0))


def cases() -> list[Case]:
    """Returns a chaotic system, a linear one with misleading short-term effects, and a policy."""
    return [_lorenz(), _influence_balancing(), _pendulum()]


def _lorenz() -> Case:
    num_steps, std = 2000, 0.04
    system = LorenzFit(num_steps)
    theta = system.outer_init(jax.random.key(0))
    return Case(
        name="Lorenz",
        system=system,
        num_steps=num_steps,
        truncation=100,
        noise_length=500,
        std=std,
        gradient=lambda: exact_gradient(system, theta, num_steps),
        smoothed_gradient=lambda: _lorenz_smoothed_gradient(system, std),
    )


def _influence_balancing() -> Case:
    num_steps = 100
    system = InfluenceBalancing(per_unit_theta=True, episode_length=num_steps)

    def gradient() -> Array:
        return exact_gradient(system, system.outer_init(jax.random.key(0)), num_steps)

    # Quadratic in theta: smoothing adds a constant to the loss.
    return Case("influence balancing", system, num_steps, 5, 20, 0.1, gradient, gradient)


def _pendulum() -> Case:
    num_steps, std = 200, 0.1
    system = PendulumSwingUp(episode_length=num_steps)
    theta = system.outer_init(jax.random.key(0))
    return Case(
        name="pendulum",
        system=system,
        num_steps=num_steps,
        truncation=20,
        noise_length=100,
        std=std,
        gradient=lambda: exact_gradient(system, theta, num_steps, num_samples=_INITIAL_STATES),
        smoothed_gradient=lambda: _smoothed_gradient(system, theta, num_steps, std),
    )


def _smoothed_gradient(system: TruncatedStep, theta: Theta, num_steps: int, std: float) -> Array:
    """Returns `[d]`, from very many antithetic pairs, because derivatives of an unroll have heavy tails."""
    flat, unravel = ravel_pytree(theta)

    def loss(flat: jax.Array, key: PRNGKey) -> jax.Array:
        return mean_loss(system, unravel(flat), num_steps, key)

    def of_one_pair(key: PRNGKey) -> jax.Array:
        noise_key, loss_key = jax.random.split(key)
        noise = std * jax.random.normal(noise_key, flat.shape)
        return noise * (loss(flat + noise, loss_key) - loss(flat - noise, loss_key)) / (2 * std**2)

    keys = jax.random.split(jax.random.key(0), _PAIRS)
    pairs = jax.jit(lambda keys: jax.lax.map(of_one_pair, keys, batch_size=_PAIRS_AT_A_TIME))(keys)
    return cast(Array, np.asarray(pairs, np.float64).mean(axis=0))


def _lorenz_smoothed_gradient(system: LorenzFit, std: float) -> Array:
    """Returns `[2]`, an integral over a grid of noise, because derivatives of single unrolls are chaotic."""
    theta = system.outer_init(jax.random.key(0))
    axis = np.linspace(-_GRID_STDS, _GRID_STDS, _GRID_WIDTH)
    noise = np.stack(np.meshgrid(axis, axis, indexing="ij"), axis=-1).reshape(-1, 2)
    density = np.exp(-0.5 * np.sum(noise**2, axis=1))

    def loss(noise: jax.Array) -> jax.Array:
        perturbed = {name: theta[name] + std * noise[i] for i, name in enumerate(("log_a", "log_r"))}
        return mean_loss(system, perturbed, system.episode_length, jax.random.key(0))

    losses = np.asarray(jax.jit(jax.vmap(loss))(jnp.asarray(noise, jnp.float32)), np.float64)
    # Stein's identity: the gradient of the smoothed loss is E[noise loss] / std.
    gradient: Array = (density * losses) @ noise / density.sum() / std
    return gradient
