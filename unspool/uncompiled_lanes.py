"""Lanes of estimators that run user code instead of one compiled program.

Such an estimator overrides `compute_gradient_estimate`. It may run any code, so it is never traced.
"""

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from unspool.outer_trainers.gradient_estimator import (
    GradientEstimator,
    GradientEstimatorOut,
    GradientEstimatorState,
    WorkerWeights,
)
from unspool.types import PRNGKey, PyTree


def check_one_device(estimator: GradientEstimator, mesh: Mesh | None) -> None:
    """Reject several devices with a ValueError."""
    if mesh is not None:
        raise ValueError(
            f"{type(estimator).__name__} defines compute_gradient_estimate itself: only an estimator that "
            "defines `estimate` can be divided over several devices; set workers.devices = 1, or mesh=None"
        )


def initial_state(
    estimator: GradientEstimator, worker_weights: WorkerWeights, key: PRNGKey
) -> GradientEstimatorState:
    """Return the state before the first estimate, with numbers as arrays. Consumes `key`."""
    return _as_arrays(estimator.init_worker_state(worker_weights, key))


def estimated(
    estimator: GradientEstimator, worker_weights: WorkerWeights, state: GradientEstimatorState, key: PRNGKey
) -> GradientEstimatorOut:
    """Return one estimate, with arrays in place of default values. Consumes `key`."""
    out, _ = estimator.compute_gradient_estimate(worker_weights, key, state, False)
    check_estimate(estimator, worker_weights, out)
    return out._replace(
        mean_loss=jnp.asarray(out.mean_loss, jnp.float32),
        grad=_as_arrays(out.grad),
        unroll_state=_as_arrays(out.unroll_state),
        weight=jnp.asarray(out.weight, jnp.float32),
        diverged_tasks=jnp.asarray(out.diverged_tasks, jnp.int32),
        inner_steps=jnp.asarray(out.inner_steps, jnp.int32),
    )


def check_estimate(estimator: GradientEstimator, worker_weights: WorkerWeights, out: object) -> None:
    """Check that `out` is an estimate with a gradient like theta; else raise a TypeError."""
    name = type(estimator).__name__
    if not isinstance(out, GradientEstimatorOut):
        raise TypeError(
            f"{name}.compute_gradient_estimate returned a {type(out).__name__} and metrics: it must return "
            "(GradientEstimatorOut, metrics)"
        )
    theta, grad = (
        jax.tree.map(lambda leaf: (jnp.shape(leaf), jnp.result_type(leaf)), tree)
        for tree in (worker_weights.theta, out.grad)
    )
    if theta != grad:
        raise TypeError(f"{name}: its gradient has shapes {grad}, and theta {theta}: they must be the same")


def state_shape(estimator: GradientEstimator, worker_weights: WorkerWeights) -> PyTree:
    """Return the structure, shapes and dtypes of the state; only the shapes of `worker_weights` are used."""
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), worker_weights)
    state = initial_state(estimator, zeros, jax.random.PRNGKey(0))
    return jax.eval_shape(lambda: state)


def _as_arrays(tree: PyTree) -> PyTree:
    return jax.tree.map(jnp.asarray, tree)
