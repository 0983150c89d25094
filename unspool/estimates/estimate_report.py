"""What an estimator hands over beside its gradient."""

import jax
import jax.numpy as jnp

from unspool.evolution.loss_difference import LossDifference
from unspool.outer_trainers.gradient_estimator import GradientEstimatorOut, Metrics, UnrollInfo
from unspool.outer_trainers.truncated_step import TruncatedUnrollOut
from unspool.types import PyTree, Theta


def unroll_info(out: TruncatedUnrollOut) -> UnrollInfo:
    """What an estimator reports of an unroll."""
    return UnrollInfo(out.loss, out.iteration, out.task_param, out.is_done)


def is_inner_step(out: TruncatedUnrollOut) -> jax.Array:
    """Shaped like the loss, int32: 1 for a step with or without a loss, 0 for one that only resets."""
    only_resets = (out.iteration <= 0) & (out.is_done | ~out.mask)
    return (~only_resets).astype(jnp.int32)


def es_out(
    grad: Theta, difference: LossDifference, next_state: PyTree, pos: TruncatedUnrollOut
) -> GradientEstimatorOut:
    """An ES estimate, from the loss differences behind it and the positive unroll."""
    return GradientEstimatorOut(
        mean_loss=difference.mean_loss,
        grad=grad,
        unroll_state=next_state,
        unroll_info=unroll_info(pos),
        weight=difference.weight,
        diverged_tasks=jnp.sum(difference.diverged, dtype=jnp.int32),
        inner_steps=2 * jnp.sum(is_inner_step(pos), dtype=jnp.int32),
    )


def unroll_metrics(
    grad: Theta, out: TruncatedUnrollOut, diverged_tasks: jax.Array, with_summary: bool
) -> Metrics:
    """What is worth watching of any estimate; with `with_summary` also the size of the gradient's leaves."""
    metrics = {
        "inner_step": jnp.mean(out.iteration[-1].astype(jnp.float32)),
        "finished_tasks": jnp.sum(out.is_done, dtype=jnp.int32),
        "diverged_tasks": diverged_tasks,
    }
    if with_summary:
        for path, leaf in jax.tree_util.tree_leaves_with_path(grad):
            metrics[f"grad_abs_mean{jax.tree_util.keystr(path)}"] = jnp.mean(jnp.abs(leaf))
    return metrics


def es_metrics(
    grad: Theta, difference: LossDifference, pos: TruncatedUnrollOut, with_summary: bool
) -> Metrics:
    """`unroll_metrics`, the mean size of the loss differences, and how many were clipped."""
    metrics = unroll_metrics(grad, pos, jnp.sum(difference.diverged, dtype=jnp.int32), with_summary)
    return {**metrics, "delta_loss": difference.mean_size, "clipped_differences": difference.clipped}
