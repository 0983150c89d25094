"""The outer loop, which averages gradient estimates and updates theta with an outer optimizer.

Users also import the names of `unspool.outer_trainers.gradient_estimator` from here.
"""

import dataclasses
import functools
import itertools
import zlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol, Self, runtime_checkable

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from unspool import device_mesh, lanes
from unspool.estimates.checks import check_theta
from unspool.estimates.finite_means import all_finite, pairwise_sum, stays_finite, weighted_means
from unspool.optimizers.base import OptaxOptimizer, Optimizer
from unspool.outer_trainers.gradient_estimator import (
    GradientEstimator,
    GradientEstimatorOut,
    GradientEstimatorState,
    Metrics,
    OuterState,
    UnrollInfo,
    WorkerWeights,
)
from unspool.types import PRNGKey, PyTree, Theta
from unspool.uncompiled_lanes import check_estimate

__all__ = [
    "AggregatedGradient",
    "GradientEstimator",
    "GradientEstimatorOut",
    "GradientEstimatorState",
    "GradientLearner",
    "GradientLearnerState",
    "MetaInit",
    "OuterState",
    "SingleMachineGradientLearner",
    "SingleMachineState",
    "UnrollInfo",
    "WorkerComputeOut",
    "WorkerWeights",
    "gradient_worker_compute",
]


_OPTIMIZER_STREAM = zlib.crc32(b"outer optimizer")


@runtime_checkable
class MetaInit(Protocol):
    """A source of the initial theta: a learned optimizer, or any other system to meta-train."""

    def init(self, key: PRNGKey) -> Theta:
        """Return an initial theta. Consumes `key`."""
        ...


class AggregatedGradient(NamedTuple):
    """The gradient that a worker or a lane passes to the learner.

    Attributes:
        theta_grads: like theta.
        theta_model_state: like the weights' `theta_model_state`, averaged with the same weights.
        mean_loss: `[]`.
        weight: `[]`, the weight in a mean of several, as in `GradientEstimatorOut`.
    """

    theta_grads: Theta
    theta_model_state: PyTree
    mean_loss: jax.Array
    weight: jax.Array | float = 1.0

    def replace(self, **changes: Any) -> Self:
        """Return a copy with some fields changed."""
        return self._replace(**changes)


class WorkerComputeOut(NamedTuple):
    """The result of `gradient_worker_compute`: the gradient to send, the next unroll states, and metrics."""

    to_put: AggregatedGradient
    unroll_states: Sequence[GradientEstimatorState]
    metrics: Mapping[str, jax.Array]


class GradientLearnerState(NamedTuple):
    """The state of the outer optimizer, which holds theta, its model state and the outer iteration."""

    theta_opt_state: PyTree

    def replace(self, **changes: Any) -> Self:
        """Return a copy with some fields changed."""
        return self._replace(**changes)


@dataclasses.dataclass(frozen=True)
class GradientLearner:
    """Outer updates of theta. The object is stateless; the state is a `GradientLearnerState`.

    Attributes:
        meta_init: initialises theta.
        theta_opt: the outer optimizer: an `Optimizer` or an optax transformation.
        num_steps: number of outer updates planned, for optimizers that use it.
    """

    meta_init: MetaInit
    theta_opt: Optimizer | optax.GradientTransformation
    num_steps: int | None = None

    def init(self, key: PRNGKey) -> GradientLearnerState:
        """Return a new state with theta from `meta_init.init(key)`. Consumes `key`."""
        theta = self.meta_init.init(key)
        check_theta(theta)
        return self.init_from_theta(theta, jax.random.fold_in(key, _OPTIMIZER_STREAM))

    def init_from_theta(self, theta: Theta, key: PRNGKey) -> GradientLearnerState:
        """Return a new state with the given theta. Consumes `key`."""
        return GradientLearnerState(self._optimizer().init(theta, num_steps=self.num_steps, key=key))

    def update(
        self,
        state: GradientLearnerState,
        grads_list: Sequence[AggregatedGradient],
        with_metrics: bool = False,
        key: PRNGKey | None = None,
    ) -> tuple[GradientLearnerState, Metrics]:
        """Make one outer update with the weighted mean of `grads_list`, by one compiled program.

        The mean is taken by a fixed pairwise tree over the order of the list, so equal lists give equal bits.
        An entry that is not finite has weight zero. The update is skipped if the total weight is zero, or if
        a finite number in theta or in the optimizer state would become infinite or NaN: then only the
        iteration changes. Without this rule, a gradient whose square overflows would stop Adam for good: its
        second moment stays infinite and every later step is zero.

        Args:
            state: from `init` or the previous update.
            grads_list: one entry per lane or worker; a different number of entries compiles another program.
            with_metrics: whether to include expensive metrics.
            key: required by outer optimizers that are random.

        Returns:
            `(state, metrics)`: `mean_loss`, `grad_norm`, `update_norm`, `used` (the number of entries with a
            positive weight), `applied` (0 or 1).
        """
        del with_metrics  # all of them are cheap
        updated: tuple[GradientLearnerState, Metrics] = _compiled_update(
            self._optimizer(), state, tuple(grads_list), key
        )
        return updated

    def get_state_for_worker(self, state: GradientLearnerState) -> WorkerWeights:
        """Return the inputs of workers' estimates."""
        theta, model_state = self._optimizer().get_params_state(state.theta_opt_state)
        return WorkerWeights(theta, model_state, OuterState(state.theta_opt_state.iteration))

    def get_meta_params(self, state: GradientLearnerState) -> Theta:
        """Return theta."""
        return self._optimizer().get_params(state.theta_opt_state)

    def get_meta_model_state(self, state: GradientLearnerState) -> PyTree:
        """Return the outer state that is not learned by gradients."""
        return self._optimizer().get_state(state.theta_opt_state)

    def _optimizer(self) -> Optimizer:
        return self.theta_opt if isinstance(self.theta_opt, Optimizer) else OptaxOptimizer(self.theta_opt)


@functools.partial(jax.jit, static_argnums=0)
def _compiled_update(
    optimizer: Optimizer,
    state: GradientLearnerState,
    entries: tuple[AggregatedGradient, ...],
    key: PRNGKey | None,
) -> tuple[GradientLearnerState, dict[str, jax.Array]]:
    opt_state = state.theta_opt_state
    weights = [jnp.where(all_finite(entry), jnp.asarray(entry.weight, jnp.float32), 0.0) for entry in entries]
    trees = [(entry.theta_grads, entry.theta_model_state, entry.mean_loss) for entry in entries]
    (grads, model_state, loss), total = weighted_means(trees, weights)
    updated = optimizer.update(opt_state, grads, loss=loss, model_state=model_state, key=key)
    theta = optimizer.get_params(opt_state)
    applied = (total > 0) & stays_finite(opt_state, updated)
    # A skipped update still advances the iteration: the outer step counts all updates, applied or skipped.
    skipped = opt_state._replace(iteration=updated.iteration)
    kept = jax.tree.map(lambda new, old: jnp.where(applied, new, old), updated, skipped)
    step = jax.tree.map(jnp.subtract, optimizer.get_params(kept), theta)
    metrics = {
        "mean_loss": jnp.where(total > 0, loss, jnp.nan),
        "grad_norm": optax.tree.norm(grads),
        "update_norm": optax.tree.norm(step),
        "used": pairwise_sum([(weight > 0).astype(jnp.int32) for weight in weights]),
        "applied": applied.astype(jnp.int32),
    }
    return GradientLearnerState(kept), metrics


def gradient_worker_compute(
    worker_weights: WorkerWeights,
    gradient_estimators: Sequence[GradientEstimator],
    unroll_states: Sequence[GradientEstimatorState],
    key: PRNGKey,
    with_metrics: bool,
    clip_nan_loss_to_value: float = 20.0,
    extra_metrics: bool = True,
    device: Any = None,
) -> WorkerComputeOut:
    """Run several estimators one after another and return the weighted mean of their estimates.

    Args:
        worker_weights: the outer parameters and the outer state.
        gradient_estimators: at least one.
        unroll_states: one per estimator.
        key: consumed; split once per estimator.
        with_metrics: whether estimators also report expensive metrics.
        clip_nan_loss_to_value: the mean loss to report if it is not finite.
        extra_metrics: whether to report the metrics of each estimator, labelled by its `cfg_name`; equal
            labels are numbered.
        device: a JAX device to compute on; the default one if None.

    Raises:
        ValueError: there are no estimators, or the numbers of states and estimators differ.
    """
    if len(gradient_estimators) != len(unroll_states) or not gradient_estimators:
        raise ValueError(
            f"gradient_worker_compute: {len(gradient_estimators)} estimators and {len(unroll_states)} unroll "
            "states; give one state per estimator, and at least one of each"
        )
    with jax.default_device(device):
        outs: list[GradientEstimatorOut] = []
        metrics: dict[str, jax.Array] = {}
        for estimator, state in zip(gradient_estimators, unroll_states, strict=True):
            key, estimate_key = jax.random.split(key)
            out, of_estimator = estimator.compute_gradient_estimate(
                worker_weights, estimate_key, state, with_metrics
            )
            if not estimator.is_compiled:
                check_estimate(estimator, worker_weights, out)
            outs.append(out)
            if extra_metrics:
                label = _unused_label(estimator.cfg_name(), metrics)
                metrics |= {f"{label}/{name}": value for name, value in of_estimator.items()}
        grads, mean_loss, weight = _merge(tuple((out.grad, out.mean_loss, out.weight) for out in outs))
        mean_loss = jnp.where(jnp.isfinite(mean_loss), mean_loss, clip_nan_loss_to_value)
    to_put = AggregatedGradient(grads, worker_weights.theta_model_state, mean_loss, weight)
    return WorkerComputeOut(to_put, [out.unroll_state for out in outs], metrics)


def _unused_label(label: str, metrics: Mapping[str, jax.Array]) -> str:
    """Return `label`, with a number if it is in use already."""
    used = {name.partition("/")[0] for name in metrics}
    numbered = (f"{label}#{number}" for number in itertools.count(2))
    return label if label not in used else next(name for name in numbered if name not in used)


@jax.jit
def _merge(entries: tuple[tuple[Theta, jax.Array, jax.Array], ...]) -> tuple[Theta, jax.Array, jax.Array]:
    """Return weighted means of gradient and loss over entries with finite gradients, and their weight."""
    weights = [jnp.where(all_finite(grad), weight, 0.0) for grad, _, weight in entries]
    (grads, loss), total = weighted_means([(grad, loss) for grad, loss, _ in entries], weights)
    return grads, jnp.where(total > 0, loss, jnp.nan), total


class SingleMachineState(NamedTuple):
    """Theta and the outer optimizer's state, one estimator state per lane, and the number of estimates
    that each lane has made.
    """

    gradient_learner_state: GradientLearnerState
    gradient_estimator_states: tuple[GradientEstimatorState, ...]
    seq: int

    def replace(self, **changes: Any) -> Self:
        """Return a copy with some fields changed."""
        return self._replace(**changes)


@dataclasses.dataclass(frozen=True)
class SingleMachineGradientLearner:
    """Lanes and learner in one process, with the same results as the service.

    With the same seed, estimators (one per lane, in lane order), devices and number of CPU threads, theta is
    bitwise equal to that of a `sync` run of the service with any number of workers.

    Attributes:
        meta_init, theta_opt, num_steps: as in `GradientLearner`.
        gradient_estimators: one per lane.
        mesh: from `unspool.device_mesh.task_mesh`, over which the tasks of every lane are divided; None for
            one device.
    """

    meta_init: MetaInit
    gradient_estimators: Sequence[GradientEstimator]
    theta_opt: Optimizer | optax.GradientTransformation
    num_steps: int | None = None
    mesh: Mesh | None = None

    def __post_init__(self) -> None:
        if not self.gradient_estimators:
            raise ValueError(
                "SingleMachineGradientLearner(gradient_estimators=[]): give at least one estimator"
            )

    @property
    def learner(self) -> GradientLearner:
        """The learner that updates theta."""
        return GradientLearner(self.meta_init, self.theta_opt, self.num_steps)

    def init(self, key: PRNGKey) -> SingleMachineState:
        """Return the initial state. All randomness derives from `key`, the run's root key."""
        learner_state = device_mesh.on_each_device(self.learner.init(lanes.theta_key(key)), self.mesh)
        weights = self.learner.get_state_for_worker(learner_state)
        states = tuple(
            lanes.init_lane(estimator, weights, key, lane, self.mesh)
            for lane, estimator in enumerate(self.gradient_estimators)
        )
        return SingleMachineState(learner_state, states, 0)

    def update(
        self, state: SingleMachineState, key: PRNGKey, with_metrics: bool = False
    ) -> tuple[SingleMachineState, jax.Array, Metrics]:
        """Make one estimate per lane and one outer update.

        Args:
            state: from `init` or the previous update.
            key: the run's root key, the same at every update: each (lane, update) derives its own from it. A
                new key for each update works as well.
            with_metrics: whether to include expensive metrics.

        Returns:
            `(state, mean_loss, metrics)`.
        """
        weights = self.learner.get_state_for_worker(state.gradient_learner_state)
        seq = state.seq + 1
        estimates = [
            lanes.estimate_lane(estimator, weights, lane_state, key, lane, seq, self.mesh)
            for lane, (estimator, lane_state) in enumerate(
                zip(self.gradient_estimators, state.gradient_estimator_states, strict=True)
            )
        ]
        entries = [
            AggregatedGradient(estimate.grad, weights.theta_model_state, estimate.mean_loss, estimate.weight)
            for estimate in estimates
        ]
        learner_state, metrics = self.learner.update(
            state.gradient_learner_state, entries, with_metrics, lanes.optimizer_key(key, seq)
        )
        states = tuple(estimate.unroll_state for estimate in estimates)
        return SingleMachineState(learner_state, states, seq), metrics["mean_loss"], metrics

    def get_meta_params(self, state: SingleMachineState) -> Theta:
        """Return theta."""
        return self.learner.get_meta_params(state.gradient_learner_state)
