"""Estimates and metrics in the form that estimators return."""

import jax
import jax.numpy as jnp

from unspool.estimates.backpropagation import MeanGradient
from unspool.evolution.loss_difference import LossDifference
from unspool.outer_trainers.gradient_estimator import (
    GradientEstimatorOut,
    GradientEstimatorState,
    Metrics,
    UnrollInfo,
)
from unspool.outer_trainers.truncated_step import TruncatedUnrollOut
from unspool.types import Theta


def _unroll_info(out: TruncatedUnrollOut) -> UnrollInfo:
    """Return the part of an unroll's output that an estimator reports."""
    return UnrollInfo(out.loss, out.iteration, out.task_param, out.is_done)


def is_inner_step(out: TruncatedUnrollOut) -> jax.Array:
    """Return int32 in the shape of the loss: 0 for a step that only resets, 1 for any other."""
    only_resets = (out.iteration <= 0) & (out.is_done | ~out.mask)
    return (~only_resets).astype(jnp.int32)


def es_estimate(
    grad: Theta,
    difference: LossDifference,
    next_state: GradientEstimatorState,
    pos: TruncatedUnrollOut,
    with_summary: bool,
    inner_steps: jax.Array | None = None,
) -> tuple[GradientEstimatorOut, Metrics]:
    """Return an ES estimate and its metrics, from loss differences and outputs of the positive members.

    The metrics are those of `_unroll_metrics`, the mean absolute loss difference, and the number of clipped
    differences. `inner_steps` counts the steps of both members; it is required if `pos` does not hold every
    step.
    """
    if inner_steps is None:
        inner_steps = 2 * jnp.sum(is_inner_step(pos), dtype=jnp.int32)
    estimate = GradientEstimatorOut(
        mean_loss=difference.mean_loss,
        grad=grad,
        unroll_state=next_state,
        unroll_info=_unroll_info(pos),
        weight=difference.weight,
        diverged_tasks=jnp.sum(difference.diverged, dtype=jnp.int32),
        inner_steps=inner_steps,
    )
    metrics = _unroll_metrics(estimate, pos, with_summary)
    metrics |= {"delta_loss": difference.mean_size, "clipped_differences": difference.clipped}
    return estimate, metrics


def differentiated_estimate(
    mean: MeanGradient,
    next_state: GradientEstimatorState,
    out: TruncatedUnrollOut,
    inner_steps: jax.Array,
    with_summary: bool,
) -> tuple[GradientEstimatorOut, Metrics]:
    """Return an estimate by backpropagation and its metrics. `inner_steps` is per task, or per step."""
    estimate = GradientEstimatorOut(
        mean_loss=mean.loss,
        grad=mean.grad,
        unroll_state=next_state,
        unroll_info=_unroll_info(out),
        weight=jnp.sum(mean.counts, dtype=jnp.float32),
        diverged_tasks=jnp.sum(mean.diverged, dtype=jnp.int32),
        inner_steps=jnp.sum(inner_steps, dtype=jnp.int32),
    )
    return estimate, _unroll_metrics(estimate, out, with_summary)


def _unroll_metrics(
    estimate: GradientEstimatorOut, out: TruncatedUnrollOut, with_summary: bool
) -> dict[str, jax.Array]:
    """Return the common metrics; with `with_summary` also the mean absolute value of each gradient leaf."""
    metrics = {
        "inner_step": jnp.mean(out.iteration[-1].astype(jnp.float32)),
        "finished_tasks": jnp.sum(out.is_done, dtype=jnp.int32),
        "diverged_tasks": jnp.asarray(estimate.diverged_tasks),
    }
    if with_summary:
        for path, leaf in jax.tree_util.tree_leaves_with_path(estimate.grad):
            metrics[f"grad_abs_mean{jax.tree_util.keystr(path)}"] = jnp.mean(jnp.abs(leaf))
    return metrics
