"""Evolution strategies on one truncation at a time: low variance, biased by the truncation.

Metz et al., "Understanding and correcting pathologies in the training of learned optimizers", ICML 2019, https://arxiv.org/abs/1810.10180.
"""

import dataclasses

import jax.numpy as jnp

from unspool.outer_trainers import common
from unspool.outer_trainers.gradient_estimator import (
    GradientEstimator,
    GradientEstimatorOut,
    Metrics,
    WorkerWeights,
    check_vectorized,
)
from unspool.outer_trainers.truncated_step import UnrollState, VectorizedStep
from unspool.types import Batch, PRNGKey


@dataclasses.dataclass(frozen=True)
class TruncatedES(GradientEstimator):
    """Both members of an antithetic pair start each truncation from the same state; the positive one is
    carried on.

    The estimate is the mean over valid (task, step) pairs of `noise delta_t / (2 std^2)`: what noise before
    this truncation did to its losses is not seen, which is the bias.

    Attributes:
        truncated_step: the system.
        unroll_length: inner steps per estimate.
        steps_per_jit: must divide `unroll_length`; every estimate is one compiled program whatever it is.
        std: standard deviation of the noise.
        stack_antithetic_samples: run both members of a pair as one unroll of twice the width, or one after
            the other.
        sign_delta_loss_scalar: use the sign of each task's loss difference times this.
        clip_loss_diff: bound on the loss difference of a step.
        divergence: what becomes of a task whose loss is not finite.
    """

    truncated_step: VectorizedStep
    unroll_length: int = 20
    steps_per_jit: int = 10
    std: float = 0.01
    stack_antithetic_samples: bool = True
    sign_delta_loss_scalar: float | None = None
    clip_loss_diff: float | None = None
    divergence: common.Divergence = "mask"

    def __post_init__(self) -> None:
        check_vectorized(self)
        common.check_es_options(self)
        common.check_length(self, "unroll_length")

    def init_worker_state(self, worker_weights: WorkerWeights, key: PRNGKey) -> UnrollState:
        return self.truncated_step.init_step_state(worker_weights.theta, worker_weights.outer_state, key)

    def estimate(
        self, worker_weights: WorkerWeights, key: PRNGKey, state: UnrollState, data: Batch, with_summary: bool
    ) -> tuple[GradientEstimatorOut, Metrics]:
        noise_key, unroll_key = common.noise_and_unroll_keys(key)
        noise, pos_theta, neg_theta = common.vector_sample_perturbations(
            worker_weights.theta, noise_key, self.std, self.truncated_step.num_tasks
        )
        states, out = common.antithetic_unroll(
            self.truncated_step,
            common.Pair(pos_theta, neg_theta),
            common.Pair(state, state),
            unroll_key,
            self.unroll_length,
            common.Inputs(data, worker_weights.outer_state),
            stacked=self.stack_antithetic_samples,
        )
        pos = common.one_side(out, 0)
        difference = common.loss_difference(
            out.loss[0], out.loss[1], pos.mask, self.divergence, self.clip_loss_diff
        )
        signed = common.with_sign(difference, self.sign_delta_loss_scalar)
        grad = common.es_gradient(noise, jnp.sum(signed.delta, axis=0), self.std, difference.weight)
        return common.es_out(grad, difference, states.pos, pos), common.es_metrics(
            grad, difference, pos, with_summary
        )

    def steps_of_data(self) -> int:
        return self.unroll_length
