"""Persistent evolution strategies.

Vicol, Metz and Sohl-Dickstein, "Unbiased Gradient Estimation in Unrolled Computation Graphs with Persistent
Evolution Strategies", ICML 2021, https://arxiv.org/abs/2112.13835. Each truncation draws new noise; a loss is
credited to the sum of all the noise that its episode has felt so far, which removes the bias of truncation.
"""

import dataclasses
from typing import Any, NamedTuple, Self

import jax
import jax.numpy as jnp

from unspool.outer_trainers import common
from unspool.outer_trainers.gradient_estimator import (
    GradientEstimator,
    GradientEstimatorOut,
    Metrics,
    WorkerWeights,
    check_vectorized,
)
from unspool.outer_trainers.truncated_step import TruncatedUnrollOut, UnrollState, VectorizedStep
from unspool.types import Batch, PRNGKey, Theta


class PESWorkerState(NamedTuple):
    """What persists from truncation to truncation; leaves lead with `[num_tasks]`.

    Attributes:
        pos_state: unrolls under `theta + noise`.
        neg_state: unrolls under `theta - noise`.
        accumulator: like theta, the sum of the noise that each task's episode has felt.
    """

    pos_state: UnrollState
    neg_state: UnrollState
    accumulator: Theta

    def replace(self, **changes: Any) -> Self:
        """A copy with some fields changed."""
        return self._replace(**changes)


@dataclasses.dataclass(frozen=True)
class TruncatedPES(GradientEstimator):
    """Persistent ES with antithetic pairs, one per task.

    With `noise_t` the perturbation that step t is taken under and the sum of all noise of the episode up to
    it as `A_t`, the estimate is the mean over valid (task, step) pairs of `A_t delta_t / (2 std^2)` (eq. (10)
    of the paper).

    Attributes:
        truncated_step: the system.
        trunc_length: inner steps per estimate.
        std: standard deviation of the noise.
        steps_per_jit: must divide `trunc_length`; every estimate is one compiled program whatever it is.
        stack_antithetic_samples: run both members of a pair as one unroll of twice the width, or one after
            the other.
        sign_delta_loss_scalar: use the sign of each task's loss difference times this.
        clip_loss_diff: bound on the loss difference of a step.
        divergence: what becomes of a task whose loss is not finite.
    """

    truncated_step: VectorizedStep
    trunc_length: int = 10
    std: float = 0.01
    steps_per_jit: int = 10
    stack_antithetic_samples: bool = True
    sign_delta_loss_scalar: float | None = None
    clip_loss_diff: float | None = None
    divergence: common.Divergence = "mask"

    def __post_init__(self) -> None:
        check_vectorized(self)
        common.check_es_options(self)
        common.check_length(self, "trunc_length")

    def init_worker_state(self, worker_weights: WorkerWeights, key: PRNGKey) -> PESWorkerState:
        theta = worker_weights.theta
        state = self.truncated_step.init_step_state(theta, worker_weights.outer_state, key)
        num_tasks = self.truncated_step.num_tasks
        accumulator = jax.tree.map(lambda leaf: jnp.zeros((num_tasks, *leaf.shape), leaf.dtype), theta)
        return PESWorkerState(state, state, accumulator)

    def estimate(
        self,
        worker_weights: WorkerWeights,
        key: PRNGKey,
        state: PESWorkerState,
        data: Batch,
        with_summary: bool,
    ) -> tuple[GradientEstimatorOut, Metrics]:
        noise_key, unroll_key = common.noise_and_unroll_keys(key)
        noise, pos_theta, neg_theta = common.vector_sample_perturbations(
            worker_weights.theta, noise_key, self.std, self.truncated_step.num_tasks
        )
        states, out = common.antithetic_unroll(
            self.truncated_step,
            common.Pair(pos_theta, neg_theta),
            common.Pair(state.pos_state, state.neg_state),
            unroll_key,
            self.trunc_length,
            common.Inputs(data, worker_weights.outer_state),
            stacked=self.stack_antithetic_samples,
        )
        pos = common.one_side(out, 0)
        difference = common.loss_difference(
            out.loss[0], out.loss[1], pos.mask, self.divergence, self.clip_loss_diff
        )
        signed = common.with_sign(difference, self.sign_delta_loss_scalar)
        accumulator = jax.tree.map(jnp.add, state.accumulator, noise)
        grad = self._gradient(accumulator, noise, signed, pos)
        next_state = PESWorkerState(*states, _noise_carried_on(accumulator, noise, pos))
        return common.es_out(grad, difference, next_state, pos), common.es_metrics(
            grad, difference, pos, with_summary
        )

    def steps_of_data(self) -> int:
        return self.trunc_length

    def _gradient(
        self, accumulator: Theta, noise: Theta, difference: common.LossDifference, out: TruncatedUnrollOut
    ) -> Theta:
        in_new_episode = _steps_after_an_end(out.is_done)
        of_old = jnp.sum(jnp.where(in_new_episode, 0.0, difference.delta), axis=0)
        of_new = jnp.sum(jnp.where(in_new_episode, difference.delta, 0.0), axis=0)
        return jax.tree.map(
            jnp.add,
            common.es_gradient(accumulator, of_old, self.std, difference.weight),
            common.es_gradient(noise, of_new, self.std, difference.weight),
        )


def _steps_after_an_end(is_done: jax.Array) -> jax.Array:
    """`[T, N]`: whether an episode has ended in this truncation before the step.

    Exclusive, since the step that ends an episode still belongs to it.
    """
    ends = is_done.astype(jnp.int32)
    return jnp.cumsum(ends, axis=0) - ends > 0


def _noise_carried_on(accumulator: Theta, noise: Theta, out: TruncatedUnrollOut) -> Theta:
    """What the next truncation's losses owe to the noise of this and earlier ones.

    All of it while the episode goes on; this truncation's where a new episode has begun in it; and nothing
    where the last step ended an episode, since the reset is still to come and the new episode has felt
    nothing yet.
    """
    reset_pending = out.is_done[-1] & out.mask[-1]
    began_anew = jnp.any(out.is_done, axis=0)

    def carried(total: jax.Array, new: jax.Array) -> jax.Array:
        per_task = (-1, *(1,) * (total.ndim - 1))
        kept = jnp.where(began_anew.reshape(per_task), new, total)
        return jnp.where(reset_pending.reshape(per_task), 0.0, kept)

    return jax.tree.map(carried, accumulator, noise)
