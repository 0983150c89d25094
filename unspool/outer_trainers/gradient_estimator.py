"""The base class of gradient estimators and the types that they exchange.

`unspool.outer_trainers.gradient_learner` re-exports the names of this file; users import them from there.
"""

import abc
import functools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Self, cast

import jax
import jax.numpy as jnp

from unspool.config.arguments import check_instance
from unspool.estimates.checks import check_theta
from unspool.outer_trainers.truncated_step import VectorizedStep
from unspool.types import Batch, PRNGKey, PyTree, Theta

GradientEstimatorState = PyTree
Metrics = Mapping[str, jax.Array]


class OuterState(NamedTuple):
    """The outer state that an estimator may depend on: the number of outer updates made, `[]` int32."""

    outer_iteration: jax.Array | int

    def replace(self, **changes: Any) -> Self:
        """Return a copy with some fields changed."""
        return self._replace(**changes)


class WorkerWeights(NamedTuple):
    """The inputs that a worker needs from the learner for an estimate.

    Attributes:
        theta: the outer parameters.
        theta_model_state: outer state that is not learned by gradients, or None.
        outer_state: the outer iteration.
    """

    theta: Theta
    theta_model_state: PyTree = None
    outer_state: OuterState | None = None

    def replace(self, **changes: Any) -> Self:
        """Return a copy with some fields changed."""
        return self._replace(**changes)


class UnrollInfo(NamedTuple):
    """The outputs of the (positively perturbed) unroll; leaves `[steps, num_tasks, ...]`."""

    loss: jax.Array
    iteration: jax.Array
    task_param: PyTree
    is_done: jax.Array

    def replace(self, **changes: Any) -> Self:
        """Return a copy with some fields changed."""
        return self._replace(**changes)


class GradientEstimatorOut(NamedTuple):
    """One estimate.

    Attributes:
        mean_loss: `[]`, mean over the valid (task, step) pairs, or over the terms of the objective; for
            reports only. The documentation of the estimators says which mean `grad` is the gradient of.
        grad: like theta; the negative is a descent direction.
        unroll_state: the state for the next call.
        unroll_info: the outputs of the unroll, or None.
        weight: `[]` float32, the weight of this estimate in a mean of several: the number of tasks (times
            `pairs_per_task`) that it is a mean over, excluding those that diverged; zero without any loss. It
            does not grow with the length of episodes: a mean over tasks must not depend on the division of
            tasks among estimates.
        diverged_tasks: `[]` int32, tasks that contributed nothing (or a bounded value) because a loss was not
            finite.
        inner_steps: `[]` int32, inner steps computed, with or without a loss, including antithetic ones;
            steps that only reset are not counted.
    """

    mean_loss: jax.Array
    grad: Theta
    unroll_state: GradientEstimatorState
    unroll_info: UnrollInfo | None
    weight: jax.Array | float = 1.0
    diverged_tasks: jax.Array | int = 0
    inner_steps: jax.Array | int = 0

    def replace(self, **changes: Any) -> Self:
        """Return a copy with some fields changed."""
        return self._replace(**changes)


class _FromTaskFamily(abc.ABCMeta):
    """Metaclass that accepts a task family in place of a step, as in the older tutorial."""

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        own = cast(Any, cls)
        is_plain = own.compute_gradient_estimate is GradientEstimator.compute_gradient_estimate
        if is_plain and own.estimate is GradientEstimator.estimate:
            raise TypeError(
                f"{cls.__name__}: a gradient estimator defines compute_gradient_estimate(worker_weights, "
                "key, state, with_summary), or estimate, which is compiled"
            )
        if "task_family" in kwargs:
            return own.for_learned_optimizer(*args, **kwargs)
        return super().__call__(*args, **kwargs)


class GradientEstimator(metaclass=_FromTaskFamily):
    """Estimates the gradient of an unrolled system's loss with respect to theta.

    A subclass defines `init_worker_state` and one of two methods. With `estimate`, a pure function of arrays,
    each estimate is one compiled program; such final classes are frozen dataclasses, so that equal
    configurations share one program. All estimators of the library are of this kind. A subclass that
    overrides `compute_gradient_estimate`, with the arguments `(worker_weights, key, state, with_summary)`,
    may run any code, needs no `truncated_step`, and runs on one device; theta is a function of the seed only
    if all its randomness derives from `key`.
    """

    truncated_step: VectorizedStep

    @abc.abstractmethod
    def init_worker_state(self, worker_weights: WorkerWeights, key: PRNGKey) -> GradientEstimatorState:
        """Return the state before the first estimate. Consumes `key`."""

    def estimate(
        self,
        worker_weights: WorkerWeights,
        key: PRNGKey,
        state: GradientEstimatorState,
        data: Batch,
        with_summary: bool,
    ) -> tuple[GradientEstimatorOut, Metrics]:
        """Return one estimate and its metrics, with `data` from `get_data`. Consumes `key`.

        A pure function, which `compute_gradient_estimate` compiles.
        """
        raise NotImplementedError(f"{type(self).__name__} does not define estimate")

    def steps_of_data(self) -> int:
        """Return the number of steps of streamed data that each estimate needs."""
        raise NotImplementedError(f"{type(self).__name__} does not define steps_of_data")

    @property
    def is_compiled(self) -> bool:
        """Whether an estimate is one compiled program; else it runs user code, which may be impure."""
        return type(self).compute_gradient_estimate is GradientEstimator.compute_gradient_estimate

    @classmethod
    def for_learned_optimizer(cls, **parts: Any) -> Self:
        """Return the estimator for a learned optimizer, from the parts of its truncated step.

        Args:
            **parts: `task_family`, `learned_opt`, `num_tasks`, `trunc_sched`, and the options of the step and
                of the estimator: `unspool.steps.learned_optimizer_parts.estimator_from_parts` describes them.
        """
        # Imported here because only this constructor needs tasks and learned optimizers.
        from unspool.steps.learned_optimizer_parts import estimator_from_parts

        return estimator_from_parts(cls, **parts)

    def compute_gradient_estimate(
        self,
        worker_weights: WorkerWeights,
        key: PRNGKey,
        state: GradientEstimatorState,
        with_summary: bool = False,
        datas_list: Sequence[Batch] | None = None,
    ) -> tuple[GradientEstimatorOut, Metrics]:
        """Return one estimate and its metrics, by one compiled program whatever the truncation length.

        Args:
            worker_weights: the outer parameters and the outer state.
            key: consumed.
            state: from `init_worker_state` or the previous estimate's `unroll_state`.
            with_summary: whether to include expensive metrics.
            datas_list: host batches, leaves `[steps, num_tasks, ...]`, concatenated along the steps; by
                default the batches of the step.

        Raises:
            TypeError: a leaf of theta is not a floating-point array, or the system violates the contract of
                `TruncatedStep`.
        """
        data = self.get_data() if datas_list is None else _concatenated(datas_list)
        out: tuple[GradientEstimatorOut, Metrics] = _compiled_estimate(
            self, worker_weights, key, state, data, with_summary
        )
        return out

    def get_data(self) -> Batch:
        """Return the data of one estimate: resident data, or else a new stack of host batches."""
        resident = self.truncated_step.resident_data()
        return self.truncated_step.get_batch(self.steps_of_data()) if resident is None else resident

    def task_name(self) -> str:
        """Return the name of the system in metrics."""
        step = getattr(self, "truncated_step", None)
        return type(self).__name__ if step is None else step.label()

    def cfg_name(self) -> str:
        """Return the name of this configuration in metrics."""
        if not hasattr(self, "truncated_step"):
            return type(self).__name__
        return f"{type(self).__name__}_{self.task_name()}_x{self.truncated_step.num_tasks}"


@functools.partial(jax.jit, static_argnums=(0, 5))
def _compiled_estimate(
    estimator: GradientEstimator,
    worker_weights: WorkerWeights,
    key: PRNGKey,
    state: GradientEstimatorState,
    data: Batch,
    with_summary: bool,
) -> tuple[GradientEstimatorOut, Metrics]:
    check_theta(worker_weights.theta)
    return estimator.estimate(worker_weights, key, state, data, with_summary)


def _concatenated(datas_list: Sequence[Batch]) -> Batch:
    return jax.tree.map(lambda *leaves: jnp.concatenate(leaves, axis=0), *datas_list)


def check_vectorized(estimator: object) -> None:
    """Reject an estimator whose `truncated_step` is not a `VectorizedStep`."""
    remedy = "wrap the step as VectorizedTruncatedStep(step, num_tasks=...)"
    check_instance(estimator, "truncated_step", VectorizedStep, remedy)
