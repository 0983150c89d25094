"""Lanes: logical gradient estimators whose randomness and state belong to the run and not to a process.

A lane is an estimator, its unroll state, and a counter `seq`. Its random streams derive from the run's seed
alone, so whoever computes estimate `seq` of a lane, from the same state and theta, computes the same bits.

The tasks of a lane may be divided among several devices (`unspool.device_mesh`). Its state is the same
numbers wherever they are.
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
"""What all randomness of a run derives from: an integer below 2**32, or a key."""

_THETA_STREAM = zlib.crc32(b"theta")
_OPTIMIZER_STREAM = zlib.crc32(b"outer optimizer's updates")
_INIT_SEQ = 0


class LaneInfo(NamedTuple):
    """What of an unroll is worth reporting.

    Attributes:
        task_loss: `[num_tasks * pairs_per_task]` float32, mean over the truncation's steps; one that only
            resets is 0.
        finished_tasks: `[]` int32, episodes that ended.
        inner_step_mean: `[]` float32, where in their episodes the tasks stand.
        inner_steps: `[]` int32, inner steps computed, antithetic ones counted.
        diverged_tasks: `[]` int32, tasks left out because a loss was not finite.
    """

    task_loss: jax.Array
    finished_tasks: jax.Array
    inner_step_mean: jax.Array
    inner_steps: jax.Array
    diverged_tasks: jax.Array


class LaneEstimate(NamedTuple):
    """One estimate of a lane.

    Attributes:
        grad: like theta.
        mean_loss: `[]` float32.
        weight: `[]` float32, tasks (times pairs per task) behind the means.
        unroll_state: what estimate `seq + 1` starts from.
        info: for reports.
    """

    grad: Theta
    mean_loss: jax.Array
    weight: jax.Array
    unroll_state: GradientEstimatorState
    info: LaneInfo


def root_key(seed: Seed) -> PRNGKey:
    """The run's root key: that of an integer seed below 2**32, or `seed` itself if it is a key already."""
    if isinstance(seed, int):
        return jax.random.PRNGKey(np.uint32(seed))
    is_integer = seed.ndim == 0 and jnp.issubdtype(seed.dtype, jnp.integer)
    return jax.random.PRNGKey(seed) if is_integer else seed


def theta_key(seed: Seed) -> PRNGKey:
    """The key that theta is initialised with."""
    return jax.random.fold_in(root_key(seed), _THETA_STREAM)


@jax.jit
def _optimizer_key(seed: jax.Array, outer_step: jax.Array) -> PRNGKey:
    return jax.random.fold_in(jax.random.fold_in(root_key(seed), _OPTIMIZER_STREAM), outer_step)


def optimizer_key(seed: Seed, outer_step: int) -> PRNGKey:
    """The key that the outer optimizer gets for the update that makes `outer_step` (from 1)."""
    key: PRNGKey = _optimizer_key(_as_argument(seed), outer_step)
    return key


def lane_key(seed: Seed, lane: int | jax.Array, seq: int | jax.Array) -> PRNGKey:
    """`fold_in(fold_in(seed, lane), seq)`: of estimate `seq` (from 1), or of the initial state (0)."""
    return jax.random.fold_in(jax.random.fold_in(root_key(seed), lane), seq)


def init_lane(
    estimator: GradientEstimator,
    worker_weights: WorkerWeights,
    seed: Seed,
    lane: int,
    mesh: Mesh | None = None,
) -> GradientEstimatorState:
    """The lane's state before its first estimate, by one compiled program; `mesh` as in `estimate_lane`."""
    if not estimator.is_compiled:
        uncompiled_lanes.check_one_device(estimator, mesh)
        check_theta(worker_weights.theta)
        return uncompiled_lanes.initial_state(estimator, worker_weights, lane_key(seed, lane, _INIT_SEQ))
    return _compiled_init(estimator, mesh, worker_weights, _as_argument(seed), lane)


def place_state(
    estimator: GradientEstimator, unroll_state: GradientEstimatorState, mesh: Mesh | None = None
) -> GradientEstimatorState:
    """A state from elsewhere (a snapshot's numpy arrays, or another mesh) where `estimate_lane` wants it."""
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
    """The lane's estimate `seq`, by one compiled program for all lanes of equal estimators.

    An estimator that defines `compute_gradient_estimate` itself is called as it is.

    Args:
        estimator: of this lane.
        worker_weights: the theta to estimate at, put in place by `device_mesh.on_each_device`.
        unroll_state: the state after estimate `seq - 1`, computed or placed with the same `mesh`.
        seed: of the run.
        lane: its number.
        seq: 1 is the first.
        mesh: from `device_mesh.task_mesh`, to divide the tasks over; None computes on one device.

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
    """Structure, shapes and dtypes of the lane's state, without computing it where it can be traced."""
    if not estimator.is_compiled:
        return uncompiled_lanes.state_shape(estimator, worker_weights)
    return jax.eval_shape(estimator.init_worker_state, worker_weights, jax.random.PRNGKey(0))


def _as_argument(seed: Seed) -> jax.Array | np.uint32:
    """A seed as a compiled program takes it: making the key eagerly costs more than a small update."""
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
    """On every device, and put there once: a data set is large, and estimates are many."""
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
    """What of an estimate concerns its lane; means are float32 whatever theta's type, as on the wire."""
    mean_loss, weight = (jnp.asarray(figure, jnp.float32) for figure in (out.mean_loss, out.weight))
    return LaneEstimate(out.grad, mean_loss, weight, out.unroll_state, _info(out))


def _info(out: GradientEstimatorOut) -> LaneInfo:
    unroll = out.unroll_info
    counts = jnp.asarray(out.inner_steps, jnp.int32), jnp.asarray(out.diverged_tasks, jnp.int32)
    if unroll is None:  # all that is known of it is the mean
        mean_loss = jnp.asarray(out.mean_loss, jnp.float32)
        return LaneInfo(mean_loss[None], jnp.int32(0), jnp.float32(0), *counts)
    return LaneInfo(
        jnp.mean(unroll.loss, axis=0).astype(jnp.float32),
        jnp.sum(unroll.is_done, dtype=jnp.int32),
        jnp.mean(unroll.iteration[-1].astype(jnp.float32)),
        *counts,
    )


def _laid_out(
    unroll_state: GradientEstimatorState, estimator: GradientEstimator, mesh: Mesh | None
) -> GradientEstimatorState:
    """In a trace, what `place_state` is outside: the state's layout is the same after every estimate."""
    if mesh is None:
        return unroll_state
    layouts = device_mesh.by_task(unroll_state, estimator.truncated_step.num_tasks, mesh)
    return jax.lax.with_sharding_constraint(unroll_state, layouts)  # type: ignore[no-untyped-call]  # no types
