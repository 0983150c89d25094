"""Gradients by backpropagation, task by task, so that one that diverges spoils no other."""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from unspool.outer_trainers.loss_difference import masked_mean
from unspool.outer_trainers.unroll import where_tasks
from unspool.types import PyTree, Theta

DivergenceOfGradients = Literal["mask", "fail"]
"""What becomes of a task whose loss or gradient is not finite. mask: it contributes nothing, and is counted.
fail: the estimate is not finite, and whoever aggregates refuses it."""


class TaskLosses(NamedTuple):
    """What is differentiated.

    Attributes:
        loss: `[N]`, of each task.
        counts: `[N]` bool; a task without any valid step has no loss.
        aux: whatever else the unroll gave.
    """

    loss: jax.Array
    counts: jax.Array
    aux: PyTree


class MeanGradient(NamedTuple):
    """Means over the tasks that count.

    Attributes:
        grad: like theta.
        loss: `[]`.
        counts: `[N]` bool.
        diverged: `[N]` bool.
        aux: of `TaskLosses`.
    """

    grad: Theta
    loss: jax.Array
    counts: jax.Array
    diverged: jax.Array
    aux: Any


def mean_gradient(
    theta: Theta, num_tasks: int, losses: Callable[[Theta], TaskLosses], divergence: DivergenceOfGradients
) -> MeanGradient:
    """Differentiates the mean of the tasks' losses.

    Args:
        theta: for all tasks.
        num_tasks: N.
        losses: of thetas with leaves `[N, ...]`, one for each task.
        divergence: the policy for tasks that diverge.
    """
    # One copy of theta per task: gradients come apart by task.
    thetas = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (num_tasks, *leaf.shape)), theta)

    def total(thetas: Theta) -> tuple[jax.Array, TaskLosses]:
        of_tasks = losses(thetas)
        return jnp.sum(of_tasks.loss), of_tasks

    (_, of_tasks), grads = jax.value_and_grad(total, has_aux=True)(thetas)
    diverged = ~(jnp.isfinite(of_tasks.loss) & _finite_per_task(grads))
    counts = of_tasks.counts & (~diverged | (divergence == "fail"))
    number = jnp.sum(counts)
    return MeanGradient(
        grad=jax.tree.map(lambda leaf: masked_mean(_sum_over(counts, leaf), number), grads),
        loss=masked_mean(_sum_over(counts, of_tasks.loss), number),
        counts=counts,
        diverged=diverged,
        aux=of_tasks.aux,
    )


def _finite_per_task(tree: Theta) -> jax.Array:
    """`[N]`: whether all numbers of each task's part of `tree` (leaves `[N, ...]`) are finite."""
    leaves = [jnp.all(jnp.isfinite(leaf), axis=range(1, leaf.ndim)) for leaf in jax.tree.leaves(tree)]
    return jnp.all(jnp.stack(leaves), axis=0)


def _sum_over(tasks: jax.Array, leaf: jax.Array) -> jax.Array:
    """The sum over the tasks `[N]` that are true; those that are not may hold anything."""
    return jnp.sum(where_tasks(tasks, leaf, jnp.zeros_like(leaf)), axis=0)
