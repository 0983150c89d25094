"""Outer training as one compiled program: a scan over outer steps, for several seeds in parallel."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from unspool.outer_trainers.gradient_estimator import GradientEstimator, OuterState, WorkerWeights
from unspool.types import PRNGKey, Theta


class Recipe(NamedTuple):
    """The training of theta.

    Attributes:
        estimator: of the gradient.
        optimizer: of theta.
        num_steps: outer steps.
        burn_in: estimates before the first outer step that only advance the unrolls. Without them the first
            gradients would see only the beginnings of episodes, even with staggered unrolls.
        arranged: changes the initial unroll state.
    """

    estimator: GradientEstimator
    optimizer: optax.GradientTransformation
    num_steps: int
    burn_in: int = 0
    arranged: Callable[[Any], Any] = lambda unroll_state: unroll_state


def trained(recipe: Recipe, num_seeds: int) -> Theta:
    """Returns all thetas, with leaves `[num_seeds, num_steps, ...]`: entry i is the one after i + 1 steps.

    The estimators must need no data from the host.
    """
    # Functions of optax are not hashable by value, so the program is compiled for this recipe only.
    seeds = jax.random.split(jax.random.PRNGKey(0), num_seeds)
    return jax.block_until_ready(jax.jit(jax.vmap(functools.partial(_trained, recipe)))(seeds))


def _trained(recipe: Recipe, key: PRNGKey) -> Theta:
    estimator, optimizer, num_steps, burn_in, arranged = recipe
    theta_key, state_key, burn_in_key, steps_key = jax.random.split(key, 4)
    theta = estimator.truncated_step.outer_init(theta_key)
    data = estimator.get_data()

    def moved_on(unroll_state: Any, key: PRNGKey) -> tuple[Any, None]:
        out, _ = estimator.estimate(weights, key, unroll_state, data, with_summary=False)
        return out.unroll_state, None

    def outer_step(carry: tuple[Theta, Any, Any], xs: tuple[jax.Array, PRNGKey]) -> tuple[Any, Theta]:
        theta, optimizer_state, unroll_state = carry
        iteration, key = xs
        weights = WorkerWeights(theta, None, OuterState(iteration))
        out, _ = estimator.estimate(weights, key, unroll_state, data, with_summary=False)
        updates, optimizer_state = optimizer.update(out.grad, optimizer_state, theta)
        theta = optax.apply_updates(theta, updates)
        return (theta, optimizer_state, out.unroll_state), theta

    weights = WorkerWeights(theta, None, OuterState(jnp.int32(0)))
    unroll_state = arranged(estimator.init_worker_state(weights, state_key))
    unroll_state, _ = jax.lax.scan(moved_on, unroll_state, jax.random.split(burn_in_key, burn_in))
    carry = (theta, optimizer.init(theta), unroll_state)
    xs = (jnp.arange(num_steps, dtype=jnp.int32), jax.random.split(steps_key, num_steps))
    return jax.lax.scan(outer_step, carry, xs)[1]
