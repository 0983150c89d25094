"""Truncated backpropagation through time: biased by truncation, and unusable in long chaotic unrolls."""

import dataclasses
from typing import get_args

import jax
import jax.numpy as jnp

from unspool.config.arguments import check_choice, check_whole_number
from unspool.estimates.backpropagation import (
    DivergenceOfGradients,
    UnrollLosses,
    mean_gradient,
    resets_harmless,
)
from unspool.estimates.estimate_report import differentiated_estimate, is_inner_step
from unspool.estimates.long_sums import scan_in_blocks, sum_over_steps
from unspool.evolution.loss_difference import masked_mean
from unspool.outer_trainers.gradient_estimator import (
    GradientEstimator,
    GradientEstimatorOut,
    Metrics,
    WorkerWeights,
    check_vectorized,
)
from unspool.outer_trainers.truncated_step import TruncatedUnrollOut, UnrollState, VectorizedStep
from unspool.steps.unroll import Inputs
from unspool.types import Batch, PRNGKey, PyTree, Theta


@dataclasses.dataclass(frozen=True)
class TruncatedGrad(GradientEstimator):
    """The derivative of the truncation's mean loss, with the incoming state held constant.

    The outer loss is the mean over tasks of each task's mean over its valid steps, and the weight of an
    estimate is its number of tasks: the mean over estimates is a mean of truncation means. The backward pass
    recomputes each step, so memory holds one state per step and no intermediate values.

    Attributes:
        truncated_step: the system.
        unroll_length: inner steps per estimate.
        steps_per_jit: no effect, since every estimate is one compiled program; accepted for code written for
            the tutorials.
        loss_type: "avg", the only objective of a truncation.
        divergence: the treatment of a task whose loss or gradient is not finite.
    """

    truncated_step: VectorizedStep
    unroll_length: int = 20
    steps_per_jit: int = dataclasses.field(default=10, compare=False)
    loss_type: str = "avg"
    divergence: DivergenceOfGradients = "mask"

    def __post_init__(self) -> None:
        check_vectorized(self)
        check_whole_number(self, "unroll_length", "steps_per_jit")
        check_choice(self, "loss_type", ("avg",))
        check_choice(self, "divergence", get_args(DivergenceOfGradients))

    def init_worker_state(self, worker_weights: WorkerWeights, key: PRNGKey) -> UnrollState:
        return self.truncated_step.init_step_state(worker_weights.theta, worker_weights.outer_state, key)

    def estimate(
        self, worker_weights: WorkerWeights, key: PRNGKey, state: UnrollState, data: Batch, with_summary: bool
    ) -> tuple[GradientEstimatorOut, Metrics]:
        unroll_key, _ = jax.random.split(jax.random.fold_in(key, 0))
        keys = self.truncated_step.keys_of_steps(jax.random.split(unroll_key, self.unroll_length))
        inputs = Inputs(data, worker_weights.outer_state)

        def losses(thetas: Theta) -> UnrollLosses:
            next_state, out = self._unroll(thetas, state, keys, inputs)
            loss = sum_over_steps(jnp.where(out.mask, out.loss, 0))
            mean = masked_mean(loss, jnp.sum(out.mask, axis=0).astype(loss.dtype))
            return UnrollLosses(mean, jnp.any(out.mask, axis=0), (next_state, out))

        mean = mean_gradient(worker_weights.theta, self.truncated_step.num_tasks, losses, self.divergence)
        next_state, out = mean.aux
        return differentiated_estimate(mean, next_state, out, is_inner_step(out), with_summary)

    def _unroll(
        self, thetas: Theta, state: UnrollState, keys: PyTree, inputs: Inputs
    ) -> tuple[UnrollState, TruncatedUnrollOut]:
        """Unroll all steps; leaves of the output are `[unroll_length, N, ...]`."""

        @jax.checkpoint
        @resets_harmless
        def step(
            thetas: Theta, state: UnrollState, key: PyTree, batch: Batch
        ) -> tuple[UnrollState, TruncatedUnrollOut]:
            data = inputs.of_step(batch)
            return self.truncated_step.step_tasks(thetas, state, key, data, inputs.context())

        def one_step(
            state: UnrollState, xs: tuple[PyTree, Batch | None]
        ) -> tuple[UnrollState, TruncatedUnrollOut]:
            next_state, out = step(thetas, state, *xs)
            return next_state, out

        return scan_in_blocks(one_step, state, (keys, inputs.streamed()), self.unroll_length)

    def steps_of_data(self) -> int:
        return self.unroll_length
