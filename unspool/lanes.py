"""Lanes: logical gradient estimators whose randomness and state belong to the run, not to a process.

A lane is an estimator, its unroll state, and a counter `seq`. Its random streams derive from the run's seed
only, so any process that computes estimate `seq` of a lane from the same state and theta gets the same bits.

The tasks of a lane may be divided among several devices (`unspool.device_mesh`). The values of its state do
not depend on the division.
"""

import functools
import zlib
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, UInt32

from unspool import device_mesh, uncompiled_lanes
from unspool.estimates.checks import check_theta
from unspool.outer_trainers.gradient_estimator import (
    GradientEstimator,
    GradientEstimatorOut,
    GradientEstimatorState,
    WorkerWeights,
)
from unspool.outer_trainers.truncated_step import VectorizedStep
from unspool.types import Batch, PRNGKey, PyTree, Theta

Seed: TypeAlias = int | UInt32[Array, ""] | PRNGKey
"""The source of all randomness of a run: an integer below 2**32, or a key."""

_THETA_STREAM = zlib.crc32(b"theta")
_OPTIMIZER_STREAM = zlib.crc32(b"outer optimizer's updates")
_INIT_SEQ = 0


class LaneInfo(NamedTuple):
    """Summary of an unroll for reports.

    Attributes:
        inner_step_mean: `[]` float32, mean inner step of the tasks within their episodes.
        inner_steps: `[]` int32, inner steps computed, including antithetic ones.
        diverged_tasks: `[]` int32, number of tasks excluded because a loss was not finite.
    """

    inner_step_mean: jax.Array
    inner_steps: jax.Array
    diverged_tasks: jax.Array


class LaneEstimate(NamedTuple):
    """One estimate of a lane.

    Attributes:
        grad: like theta.
        mean_loss: `[]` float32.
        weight: `[]` float32, number of tasks (times pairs per task) that the means are over.
        unroll_state: the state for estimate `seq + 1`.
        info: summary for reports.
    """

    grad: Theta
    mean_loss: jax.Array
    weight: jax.Array
    unroll_state: GradientEstimatorState
    info: LaneInfo


def root_key(seed: Seed) -> PRNGKey:
    """Return the run's root key, from an integer seed below 2**32; a key is returned unchanged."""
    if isinstance(seed, int):
        return jax.random.PRNGKey(np.uint32(seed))
    is_integer = seed.ndim == 0 and jnp.issubdtype(seed.dtype, jnp.integer)
    return jax.random.PRNGKey(seed) if is_integer else seed


def theta_key(seed: Seed) -> PRNGKey:
    """Return the key for the initial theta."""
    return jax.random.fold_in(root_key(seed), _THETA_STREAM)


@jax.jit
def _optimizer_key(seed: jax.Array, outer_step: jax.Array) -> PRNGKey:
    return jax.random.fold_in(jax.random.fold_in(root_key(seed), _OPTIMIZER_STREAM), outer_step)


def optimizer_key(seed: Seed, outer_step: int) -> PRNGKey:
    """Return the outer optimizer's key for the update to `outer_step` (from 1)."""
    key: PRNGKey = _optimizer_key(_as_argument(seed), outer_step)
    return key


def lane_key(seed: Seed, lane: int | jax.Array, seq: int | jax.Array) -> PRNGKey:
    """Return `fold_in(fold_in(seed, lane), seq)`: the key of estimate `seq`, or of the initial state (0)."""
    return jax.random.fold_in(jax.random.fold_in(root_key(seed), lane), seq)


def init_lane(
    estimator: GradientEstimator,
    worker_weights: WorkerWeights,
    seed: Seed,
    lane: int,
    mesh: Mesh | None = None,
) -> GradientEstimatorState:
    """Return the lane's initial state, by one compiled program; `mesh` as in `estimate_lane`."""
    if not estimator.is_compiled:
        uncompiled_lanes.check_one_device(estimator, mesh)
        check_theta(worker_weights.theta)
        return uncompiled_lanes.initial_state(estimator, worker_weights, lane_key(seed, lane, _INIT_SEQ))
    return _compiled_init(estimator, mesh, worker_weights, _as_argument(seed), lane)


def place_state(
    estimator: GradientEstimator, unroll_state: GradientEstimatorState, mesh: Mesh | None = None
) -> GradientEstimatorState:
    """Return a state of numpy arrays, or of another mesh, on the devices that `estimate_lane` needs."""
    if mesh is None:
        return jax.device_put(unroll_state)
    if not estimator.is_compiled:
        uncompiled_lanes.check_one_device(estimator, mesh)
    num_tasks = estimator.truncated_step.num_tasks
    return jax.device_put(unroll_state, device_mesh.by_task(unroll_state, num_tasks, mesh))


def estimate_lane(
    estimator: GradientEstimator,
    worker_weights: WorkerWeights,
    unroll_state: GradientEstimatorState,
    seed: Seed,
    lane: int,
    seq: int,
    mesh: Mesh | None = None,
) -> LaneEstimate:
    """Return the lane's estimate `seq`, by one compiled program for all lanes with equal estimators.

    An estimator that overrides `compute_gradient_estimate` is called directly, without compilation.

    Args:
        estimator: the lane's estimator.
        worker_weights: the theta to estimate at, placed by `device_mesh.on_each_device`.
        unroll_state: the state after estimate `seq - 1`, computed or placed with the same `mesh`.
        seed: the run's seed.
        lane: the lane's number.
        seq: the number of the estimate, from 1.
        mesh: from `device_mesh.task_mesh`, over which the tasks are divided; None for one device.

    Raises:
        ValueError: the tasks cannot be divided evenly over `mesh`.
    """
    if not estimator.is_compiled:
        uncompiled_lanes.check_one_device(estimator, mesh)
        key = lane_key(seed, lane, seq)
        return _lane_estimate(uncompiled_lanes.estimated(estimator, worker_weights, unroll_state, key))
    estimate: LaneEstimate = _compiled_estimate(
        estimator, mesh, worker_weights, unroll_state, _as_argument(seed), lane, seq, _data(estimator, mesh)
    )
    return estimate


def lane_state_shape(estimator: GradientEstimator, worker_weights: WorkerWeights) -> PyTree:
    """Return the structure, shapes and dtypes of the lane's state, by tracing if possible."""
    if not estimator.is_compiled:
        return uncompiled_lanes.state_shape(estimator, worker_weights)
    return jax.eval_shape(estimator.init_worker_state, worker_weights, jax.random.PRNGKey(0))


def _as_argument(seed: Seed) -> jax.Array | np.uint32:
    """Return the seed as a program's argument; making the key eagerly costs more than a small update."""
    return np.uint32(seed) if isinstance(seed, int) else seed


def _data(estimator: GradientEstimator, mesh: Mesh | None) -> Batch:
    step = estimator.truncated_step
    if mesh is None:
        return estimator.get_data()
    resident = _resident_data(step, mesh)
    if resident is not None:
        return resident
    streamed = estimator.get_data()
    return jax.device_put(streamed, device_mesh.by_task(streamed, step.num_tasks, mesh, axis=1))


@functools.cache
def _resident_data(step: VectorizedStep, mesh: Mesh) -> Batch | None:
    """Return resident data replicated on every device. The cache avoids a transfer per estimate."""
    resident = step.resident_data()
    return None if resident is None else device_mesh.on_each_device(resident, mesh)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _compiled_init(
    estimator: GradientEstimator,
    mesh: Mesh | None,
    worker_weights: WorkerWeights,
    seed: jax.Array,
    lane: jax.Array,
) -> GradientEstimatorState:
    check_theta(worker_weights.theta)
    with device_mesh.dividing_tasks(estimator.truncated_step.num_tasks, mesh):
        unroll_state = estimator.init_worker_state(worker_weights, lane_key(seed, lane, _INIT_SEQ))
    return _laid_out(unroll_state, estimator, mesh)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _compiled_estimate(
    estimator: GradientEstimator,
    mesh: Mesh | None,
    worker_weights: WorkerWeights,
    unroll_state: GradientEstimatorState,
    seed: jax.Array,
    lane: jax.Array,
    seq: jax.Array,
    data: Batch,
) -> LaneEstimate:
    with device_mesh.dividing_tasks(estimator.truncated_step.num_tasks, mesh):
        out, _ = estimator.estimate(
            worker_weights, lane_key(seed, lane, seq), unroll_state, data, with_summary=False
        )
    return _lane_estimate(out._replace(unroll_state=_laid_out(out.unroll_state, estimator, mesh)))


def _lane_estimate(out: GradientEstimatorOut) -> LaneEstimate:
    """Return the lane's part of an estimate; means are float32 for any dtype of theta, as on the wire."""
    mean_loss, weight = (jnp.asarray(figure, jnp.float32) for figure in (out.mean_loss, out.weight))
    return LaneEstimate(out.grad, mean_loss, weight, out.unroll_state, _info(out))


def _info(out: GradientEstimatorOut) -> LaneInfo:
    unroll = out.unroll_info
    return LaneInfo(
        jnp.float32(0) if unroll is None else jnp.mean(unroll.iteration[-1].astype(jnp.float32)),
        jnp.asarray(out.inner_steps, jnp.int32),
        jnp.asarray(out.diverged_tasks, jnp.int32),
    )


def _laid_out(
    unroll_state: GradientEstimatorState, estimator: GradientEstimator, mesh: Mesh | None
) -> GradientEstimatorState:
    """Constrain the state's sharding in a trace, so that it is the same after every estimate."""
    if mesh is None:
        return unroll_state
    layouts = device_mesh.by_task(unroll_state, estimator.truncated_step.num_tasks, mesh)
    return jax.lax.with_sharding_constraint(unroll_state, layouts)  # type: ignore[no-untyped-call]  # no types
