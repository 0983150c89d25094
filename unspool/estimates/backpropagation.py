"""Backpropagation with one gradient per task; NaNs of diverged tasks and discarded steps do not spread."""

import itertools
from collections.abc import Callable
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

from unspool.evolution.loss_difference import masked_mean
from unspool.outer_trainers.truncated_step import TruncatedUnrollOut, UnrollState
from unspool.steps.unroll import where_tasks
from unspool.types import PyTree, Theta

DivergenceOfGradients = Literal["mask", "fail"]
"""The treatment of a task whose loss or gradient is not finite. mask: it contributes nothing, and is counted.
fail: the estimate is not finite, and aggregation rejects it."""


class UnrollLosses(NamedTuple):
    """The losses to differentiate `[N]`, one per task, with False in `counts` `[N]` for tasks without a
    loss, and other results of the unroll.
    """

    loss: jax.Array
    counts: jax.Array
    aux: PyTree


class MeanGradient(NamedTuple):
    """Means of the gradient (like theta) and of the loss (`[]`) over the tasks with True in `counts`
    `[N]`.

    `diverged` is `[N]` bool, `aux` that of `UnrollLosses`.
    """

    grad: Theta
    loss: jax.Array
    counts: jax.Array
    diverged: jax.Array
    aux: PyTree


def mean_gradient(
    theta: Theta, num_tasks: int, losses: Callable[[Theta], UnrollLosses], divergence: DivergenceOfGradients
) -> MeanGradient:
    """Return the gradient of the mean of `losses`, a function of one theta per task, leaves `[N, ...]`."""
    # One copy of theta per task gives one gradient per task.
    thetas = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (num_tasks, *leaf.shape)), theta)

    def total(thetas: Theta) -> tuple[jax.Array, UnrollLosses]:
        of_tasks = losses(thetas)
        return jnp.sum(of_tasks.loss), of_tasks

    (_, of_tasks), grads = jax.value_and_grad(total, has_aux=True)(thetas)
    diverged = ~(jnp.isfinite(of_tasks.loss) & _finite_per_task(grads))
    counts = of_tasks.counts & (~diverged | (divergence == "fail"))
    number = jnp.sum(counts).astype(of_tasks.loss.dtype)
    return MeanGradient(
        grad=jax.tree.map(
            lambda leaf: masked_mean(_sum_over(counts, leaf), number.astype(leaf.dtype)), grads
        ),
        loss=masked_mean(_sum_over(counts, of_tasks.loss), number),
        counts=counts,
        diverged=diverged,
        aux=of_tasks.aux,
    )


def _finite_per_task(tree: Theta) -> jax.Array:
    """Return `[N]` bool, whether all numbers of a task in `tree` (leaves `[N, ...]`) are finite."""
    leaves = [jnp.all(jnp.isfinite(leaf), axis=range(1, leaf.ndim)) for leaf in jax.tree.leaves(tree)]
    return jnp.all(jnp.stack(leaves), axis=0)


def _sum_over(tasks: jax.Array, leaf: jax.Array) -> jax.Array:
    """Return the sum over the tasks where `tasks` `[N]` is True; values of the others are arbitrary."""
    return jnp.sum(where_tasks(tasks, leaf, jnp.zeros_like(leaf)), axis=0)


class FloatingLeaves:
    """The floating-point leaves of a tree, separated from the others, which have no derivatives."""

    def __init__(self, tree: PyTree) -> None:
        self._leaves, self._treedef = jax.tree.flatten(tree)
        self._is_floating = [jnp.issubdtype(leaf.dtype, jnp.floating) for leaf in self._leaves]

    @property
    def floating(self) -> list[jax.Array]:
        return list(itertools.compress(self._leaves, self._is_floating))

    def joined(self, floating: list[jax.Array]) -> PyTree:
        """Return the tree with other floating-point leaves."""
        replacements = iter(floating)
        leaves = [
            next(replacements) if is_floating else leaf
            for leaf, is_floating in zip(self._leaves, self._is_floating, strict=True)
        ]
        return jax.tree.unflatten(self._treedef, leaves)


Step = Callable[..., tuple[UnrollState, TruncatedUnrollOut]]


def resets_harmless(step: Step) -> Step:
    """Return `step(thetas, state, *others)` with NaN-free derivatives where a reset discards its result.

    A step that only resets often computes an ordinary step as well and selects the reset. The ordinary step's
    cotangent is zero, but zero times an infinite derivative is NaN. Whether a step resets is known only from
    its outputs, which the backward pass visits before its inputs. The flag is passed to the inputs as the
    cotangent of a dummy number that bypasses the step. If the cotangents of a reset's outputs are finite,
    non-finite cotangents of its inputs are set to zero. This also drops the contribution of an initial state
    that depends on the same element of theta; a system keeps it by calling
    `unspool.discarded.not_differentiated`.

    Args:
        step: a function for which leaves of thetas, state and results are `[N, ...]`.
    """

    def harmless(
        thetas: Theta, state: UnrollState, *others: object
    ) -> tuple[UnrollState, TruncatedUnrollOut]:
        given = FloatingLeaves((thetas, state))
        leaves, flag = _entering(given.floating)
        returned = step(*given.joined(leaves), *others)
        out = returned[1]
        only_resets = ~out.mask & ((out.iteration <= 0) | out.is_done)
        made = FloatingLeaves(returned)
        moved: tuple[UnrollState, TruncatedUnrollOut] = made.joined(
            _leaving(made.floating, flag, only_resets)
        )
        return moved

    return harmless


@jax.custom_vjp
def _entering(leaves: list[jax.Array]) -> tuple[list[jax.Array], jax.Array]:
    """Return the leaves `[N, ...]`, and zeros `[N]` whose cotangent marks steps that only reset."""
    return leaves, jnp.zeros(leaves[0].shape[:1], leaves[0].dtype)


def _entering_backward(_: None, cotangents: tuple[list[jax.Array], jax.Array]) -> tuple[list[jax.Array]]:
    leaves, flag = cotangents

    def harmless(leaf: jax.Array) -> jax.Array:
        only_resets = (flag > 0).reshape(-1, *(1,) * (leaf.ndim - 1))
        return jnp.where(only_resets & ~jnp.isfinite(leaf), jnp.zeros_like(leaf), leaf)

    return ([harmless(leaf) for leaf in leaves],)


_entering.defvjp(lambda leaves: (_entering(leaves), None), _entering_backward)


@jax.custom_vjp
def _leaving(leaves: list[jax.Array], flag: jax.Array, only_resets: jax.Array) -> list[jax.Array]:
    """Return the leaves `[N, ...]`; the cotangent of `flag` `[N]` marks, for `_entering`, steps that only
    reset and have finite cotangents.
    """
    del flag, only_resets
    return leaves


def _leaving_backward(
    flag_and_resets: tuple[jax.Array, jax.Array], leaves: list[jax.Array]
) -> tuple[list[jax.Array], jax.Array, None]:
    flag, only_resets = flag_and_resets
    return leaves, (only_resets & _finite_per_task(leaves)).astype(flag.dtype), None


_leaving.defvjp(lambda leaves, flag, only_resets: (leaves, (flag, only_resets)), _leaving_backward)
