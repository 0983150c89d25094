"""Many independent estimates of one gradient, and the exact gradient to compare them with."""

import functools
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from jax.flatten_util import ravel_pytree

from unspool.outer_trainers.gradient_estimator import GradientEstimator, OuterState, WorkerWeights
from unspool.outer_trainers.truncated_step import TruncatedStep
from unspool.types import Batch, PRNGKey, Theta

Array = npt.NDArray[np.float64]

_SEED, _EXACT_SEED = 0, 1
_GRADIENTS_AT_A_TIME = 512


def weights_of(theta: Theta) -> WorkerWeights:
    """Returns the inputs of an estimator for a learner with `theta`."""
    return WorkerWeights(theta, None, OuterState(jnp.zeros((), jnp.int32)))


def sample_estimates(
    estimator: GradientEstimator,
    theta: Theta,
    num_trajectories: int,
    num_truncations: int = 1,
    data: Batch | None = None,
) -> Array:
    """Flat estimates `[num_trajectories, num_truncations, d]`.

    Trajectories are independent. Each starts with an episode, and its truncations are consecutive estimates.
    The system's own data is used if `data` is None.
    """
    keys = jax.random.split(jax.random.key(_SEED), num_trajectories)
    data = estimator.truncated_step.resident_data() if data is None else data
    return np.asarray(_trajectories(estimator, num_truncations, theta, data, keys), np.float64)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _trajectories(
    estimator: GradientEstimator, num_truncations: int, theta: Theta, data: Batch, keys: PRNGKey
) -> jax.Array:
    def trajectory(key: PRNGKey) -> jax.Array:
        init_key, windows_key = jax.random.split(key)

        def truncation(state: Any, key: PRNGKey) -> tuple[Any, jax.Array]:
            out, _ = estimator.estimate(weights_of(theta), key, state, data, with_summary=False)
            return out.unroll_state, ravel_pytree(out.grad)[0]

        state = estimator.init_worker_state(weights_of(theta), init_key)
        return jax.lax.scan(truncation, state, jax.random.split(windows_key, num_truncations))[1]

    return jax.vmap(trajectory)(keys)


def exact_gradient(step: TruncatedStep, theta: Theta, num_steps: int, num_samples: int = 1) -> Array:
    """Flat gradient `[d]` of `mean_loss`, by backpropagation; its mean over `num_samples` keys."""
    flat, unravel = ravel_pytree(theta)

    def gradient(key: PRNGKey) -> jax.Array:
        return cast(jax.Array, jax.grad(lambda flat: mean_loss(step, unravel(flat), num_steps, key))(flat))

    keys = jax.random.split(jax.random.key(_EXACT_SEED), num_samples)
    gradients = jax.jit(lambda keys: jax.lax.map(gradient, keys, batch_size=_GRADIENTS_AT_A_TIME))(keys)
    return cast(Array, np.asarray(gradients, np.float64).mean(axis=0))


def mean_loss(step: TruncatedStep, theta: Theta, num_steps: int, key: PRNGKey) -> jax.Array:
    """`[]`, of the first `num_steps` steps of an unroll. Consumes `key`."""
    init_key, steps_key = jax.random.split(key)

    def one_step(state: Any, key: PRNGKey) -> tuple[Any, tuple[jax.Array, jax.Array]]:
        state, out = step.unroll_step(theta, state, key, (), None)
        return state, (out.loss, out.mask)

    state = step.init_step_state(theta, None, init_key)
    _, (loss, mask) = jax.lax.scan(one_step, state, jax.random.split(steps_key, num_steps))
    mean: jax.Array = jnp.sum(jnp.where(mask, loss, 0.0)) / jnp.sum(mask)
    return mean


def total_variance(estimates: Array) -> float:
    """Returns the sum over dimensions of the variance of estimates `[..., d]`, over all truncations."""
    return float(estimates.reshape(-1, estimates.shape[-1]).var(axis=0).sum())


def z_scores(estimates: Array, exact: Array) -> Array:
    """`[d]`: the difference of the mean of independent estimates `[n, d]` to `exact`, in standard errors."""
    standard_error = estimates.std(axis=0) / np.sqrt(len(estimates))
    scores: Array = (estimates.mean(axis=0) - exact) / standard_error
    return scores


def relative_bias(estimates: Array, exact: Array) -> tuple[float, float]:
    """Returns the distance between the mean of independent estimates `[n, d]` and `exact`, and its
    expectation without bias; both relative to the length of `exact`.
    """
    length = float(np.linalg.norm(exact))
    expected = float(np.sqrt(estimates.var(axis=0).sum() / len(estimates)))
    return float(np.linalg.norm(estimates.mean(axis=0) - exact)) / length, expected / length
