"""Truncated backpropagation through time: exact for the truncation, biased by it, and at the mercy of chaos
in long unrolls.
"""

import dataclasses
from typing import get_args

import jax
import jax.numpy as jnp

from unspool.arguments import check_choice
from unspool.outer_trainers.backpropagation import DivergenceOfGradients, TaskLosses, mean_gradient
from unspool.outer_trainers.estimate_report import unroll_info, unroll_metrics
from unspool.outer_trainers.gradient_estimator import (
    GradientEstimator,
    GradientEstimatorOut,
    Metrics,
    WorkerWeights,
    check_length,
    check_vectorized,
)
from unspool.outer_trainers.loss_difference import masked_mean
from unspool.outer_trainers.truncated_step import UnrollState, VectorizedStep
from unspool.outer_trainers.unroll import Inputs, unroll
from unspool.types import Batch, PRNGKey, Theta


@dataclasses.dataclass(frozen=True)
class TruncatedGrad(GradientEstimator):
    """The derivative of the truncation's mean loss, the incoming state held constant.

    The outer loss is the mean over tasks of each task's mean over its valid steps. Steps are rematerialised
    in the backward pass, so memory holds one state per step and not what the step computed.

    Attributes:
        truncated_step: the system.
        unroll_length: inner steps per estimate.
        steps_per_jit: must divide `unroll_length`; every estimate is one compiled program whatever it is.
        loss_type: "avg", the only objective of a truncation.
        divergence: what becomes of a task whose loss or gradient is not finite.
    """

    truncated_step: VectorizedStep
    unroll_length: int = 20
    steps_per_jit: int = 10
    loss_type: str = "avg"
    divergence: DivergenceOfGradients = "mask"

    def __post_init__(self) -> None:
        check_vectorized(self)
        check_length(self, "unroll_length")
        check_choice(self, "loss_type", ("avg",))
        check_choice(self, "divergence", get_args(DivergenceOfGradients))

    def init_worker_state(self, worker_weights: WorkerWeights, key: PRNGKey) -> UnrollState:
        return self.truncated_step.init_step_state(worker_weights.theta, worker_weights.outer_state, key)

    def estimate(
        self, worker_weights: WorkerWeights, key: PRNGKey, state: UnrollState, data: Batch, with_summary: bool
    ) -> tuple[GradientEstimatorOut, Metrics]:
        unroll_key, _ = jax.random.split(jax.random.fold_in(key, 0))

        def losses(thetas: Theta) -> TaskLosses:
            next_state, out = unroll(
                self.truncated_step,
                thetas,
                state,
                unroll_key,
                self.unroll_length,
                Inputs(data, worker_weights.outer_state),
                theta_is_vector=True,
                rematerialize=True,
            )
            loss = jnp.sum(jnp.where(out.mask, out.loss, 0.0), axis=0)
            mean = masked_mean(loss, jnp.sum(out.mask, axis=0))
            return TaskLosses(mean, jnp.any(out.mask, axis=0), (next_state, out))

        mean = mean_gradient(worker_weights.theta, self.truncated_step.num_tasks, losses, self.divergence)
        next_state, out = mean.aux
        estimate = GradientEstimatorOut(
            mean_loss=mean.loss,
            grad=mean.grad,
            unroll_state=next_state,
            unroll_info=unroll_info(out),
            weight=jnp.sum(out.mask & mean.counts, dtype=jnp.float32),
            diverged_tasks=jnp.sum(mean.diverged, dtype=jnp.int32),
            inner_steps=jnp.sum(out.mask, dtype=jnp.int32),
        )
        return estimate, unroll_metrics(mean.grad, out, estimate.diverged_tasks, with_summary)

    def steps_of_data(self) -> int:
        return self.unroll_length
