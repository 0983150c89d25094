"""Truncated backpropagation through time: exact for the truncation, biased by it, and at the mercy of chaos
in long unrolls.
"""

import dataclasses

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
        divergence: "mask" drops a task whose loss or gradient is not finite, "fail" lets it through.
    """

    truncated_step: VectorizedStep
    unroll_length: int = 20
    steps_per_jit: int = 10
    loss_type: str = "avg"
    divergence: common.Divergence = "mask"

    def __post_init__(self) -> None:
        check_vectorized(self)
        common.check_length(self, "unroll_length")
        if self.loss_type != "avg":
            raise ValueError(
                f"TruncatedGrad(loss_type={self.loss_type!r}): a truncation has only the 'avg' objective"
            )
        if self.divergence not in ("mask", "fail"):
            raise ValueError(f"TruncatedGrad(divergence={self.divergence!r}): choose 'mask' or 'fail'")

    def init_worker_state(self, worker_weights: WorkerWeights, key: PRNGKey) -> UnrollState:
        return self.truncated_step.init_step_state(worker_weights.theta, worker_weights.outer_state, key)

    def estimate(
        self, worker_weights: WorkerWeights, key: PRNGKey, state: UnrollState, data: Batch, with_summary: bool
    ) -> tuple[GradientEstimatorOut, Metrics]:
        unroll_key, _ = jax.random.split(jax.random.fold_in(key, 0))
        num_tasks = self.truncated_step.num_tasks
        # One copy of theta per task, so that gradients come apart by task and a diverged one can be left out.
        thetas = jax.tree.map(
            lambda leaf: jnp.broadcast_to(leaf, (num_tasks, *leaf.shape)), worker_weights.theta
        )

        def total_loss(thetas: Theta) -> tuple[jax.Array, tuple[UnrollState, TruncatedUnrollOut, jax.Array]]:
            next_state, out = common.unroll(
                self.truncated_step,
                thetas,
                state,
                unroll_key,
                self.unroll_length,
                common.Inputs(data, worker_weights.outer_state),
                theta_is_vector=True,
                rematerialize=True,
            )
            loss = jnp.sum(jnp.where(out.mask, out.loss, 0.0), axis=0)
            task_loss = common.masked_mean(loss, jnp.sum(out.mask, axis=0))
            return jnp.sum(task_loss), (next_state, out, task_loss)

        (_, (next_state, out, task_loss)), grads = jax.value_and_grad(total_loss, has_aux=True)(thetas)
        diverged = ~(jnp.isfinite(task_loss) & _finite_per_task(grads))
        counts = jnp.any(out.mask, axis=0) & (~diverged | (self.divergence == "fail"))
        num_counting = jnp.sum(counts)
        grad = jax.tree.map(lambda leaf: common.masked_mean(_sum_over(counts, leaf), num_counting), grads)
        estimate = GradientEstimatorOut(
            mean_loss=common.masked_mean(_sum_over(counts, task_loss), num_counting),
            grad=grad,
            unroll_state=next_state,
            unroll_info=common.unroll_info(out),
            weight=jnp.sum(out.mask & counts, dtype=jnp.float32),
            diverged_tasks=jnp.sum(diverged, dtype=jnp.int32),
            inner_steps=jnp.sum(out.mask, dtype=jnp.int32),
        )
        return estimate, common.unroll_metrics(grad, out, estimate.diverged_tasks, with_summary)

    def steps_of_data(self) -> int:
        return self.unroll_length


def _finite_per_task(tree: Theta) -> jax.Array:
    """`[N]`: whether all numbers of each task's part of `tree` (leaves `[N, ...]`) are finite."""
    leaves = [jnp.all(jnp.isfinite(leaf), axis=range(1, leaf.ndim)) for leaf in jax.tree.leaves(tree)]
    return jnp.all(jnp.stack(leaves), axis=0)


def _sum_over(tasks: jax.Array, leaf: jax.Array) -> jax.Array:
    """The sum over the tasks `[N]` that are true; those that are not may hold anything."""
    return jnp.sum(jnp.where(tasks.reshape(-1, *(1,) * (leaf.ndim - 1)), leaf, 0.0), axis=0)
