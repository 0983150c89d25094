"""How much better or worse each perturbation did, step by step: what counts, with what weight, and what
becomes of tasks that diverge.
"""

from typing import Literal, NamedTuple, Self

import jax
import jax.numpy as jnp

from unspool.types import Theta

Divergence = Literal["mask", "clip", "fail"]
"""What becomes of a task with a loss that is not finite. mask: it contributes nothing to this estimate, and
is counted. clip: its loss difference counts as the bound `clip_loss_diff`, with the sign of the worse side.
fail: the estimate is not finite, and whoever aggregates refuses it."""


class Sides(NamedTuple):
    """Losses under a perturbation and against it, as they were computed; leaves `[T, N]`.

    Attributes:
        delta: loss under the perturbation minus loss against it, or its limit for small perturbations.
        mean: of both.
        finite: bool, both are finite.
        worse: the sign of the side that is not finite, zero if both are or are not.
    """

    delta: jax.Array
    mean: jax.Array
    finite: jax.Array
    worse: jax.Array

    @classmethod
    def of_pair(cls, pos: jax.Array, neg: jax.Array) -> Self:
        """The losses of an antithetic pair."""
        pos_finite, neg_finite = jnp.isfinite(pos), jnp.isfinite(neg)
        worse = neg_finite.astype(pos.dtype) - pos_finite.astype(pos.dtype)
        return cls(pos - neg, (pos + neg) / 2, pos_finite & neg_finite, worse)

    @classmethod
    def of_derivative(cls, loss: jax.Array, derivative: jax.Array) -> Self:
        """A loss and its directional derivative along a perturbation: what `delta / 2` tends to."""
        finite = jnp.isfinite(loss) & jnp.isfinite(derivative)
        return cls(2 * derivative, loss, finite, jnp.zeros_like(loss))


class LossDifference(NamedTuple):
    """Losses of perturbed unrolls, step by step, once weights and the divergence policy have been applied.

    Attributes:
        delta: `[T, N]`, times its weight; zero where nothing counts.
        mean: `[T, N]`, times its weight; zero where nothing counts.
        weights: `[T, N]` float32; zero for (step, task) pairs that do not count.
        diverged: `[N]` bool.
        clipped: `[]` int32, differences that were beyond their bound.
    """

    delta: jax.Array
    mean: jax.Array
    weights: jax.Array
    diverged: jax.Array
    clipped: jax.Array

    @property
    def weight(self) -> jax.Array:
        """`[]` float32: the number of valid (step, task) pairs, if each has weight 1."""
        return jnp.sum(self.weights)

    @property
    def mean_loss(self) -> jax.Array:
        """`[]`, over the valid pairs."""
        return masked_mean(jnp.sum(self.mean), self.weight)


def loss_difference(
    sides: Sides,
    mask: jax.Array,
    weights: jax.Array | None,
    *,
    divergence: Divergence,
    clip_loss_diff: float | None,
    sign_delta_loss_scalar: float | None,
) -> LossDifference:
    """What counts of `sides`.

    Args:
        sides: leaves `[T, N]`.
        mask: `[T, N]` bool; losses where it is False do not count.
        weights: `[T, N]` how much each counts; None for all the same.
        divergence: the policy for tasks with a loss that is not finite.
        clip_loss_diff: bound on the size of each difference, or None.
        sign_delta_loss_scalar: replace each task's differences by the sign of their sum times this.
    """
    delta, mean = sides.delta, sides.mean
    diverged = jnp.any(mask & ~sides.finite, axis=0)
    valid = mask & ~diverged if divergence == "mask" else mask
    clipped = jnp.zeros((), jnp.int32)
    if divergence == "clip" and clip_loss_diff is not None:
        delta = jnp.where(sides.finite, delta, sides.worse * clip_loss_diff)
        mean = jnp.where(sides.finite, mean, 0.0)
    if clip_loss_diff is not None:
        clipped = jnp.sum(valid & (jnp.abs(delta) > clip_loss_diff), dtype=jnp.int32)
        delta = jnp.clip(delta, -clip_loss_diff, clip_loss_diff)
    counted = jnp.where(valid, 1.0 if weights is None else weights, 0.0)
    # `where`, not a product: zero times NaN is NaN.
    delta, mean = (jnp.where(valid, counted * term, 0.0) for term in (delta, mean))
    if sign_delta_loss_scalar is not None:
        delta = counted * jnp.sign(jnp.sum(delta, axis=0)) * sign_delta_loss_scalar
    return LossDifference(delta, mean, counted, diverged, clipped)


def masked_mean(total: jax.Array, weight: jax.Array) -> jax.Array:
    """`total / weight`, and zero where nothing counts."""
    return jnp.where(weight > 0, total / jnp.where(weight > 0, weight, 1.0), jnp.zeros_like(total))


def credit(perturbation: Theta, delta: jax.Array) -> Theta:
    """`sum_i perturbation_i delta_i` over tasks; `perturbation` has leaves `[N, ...]`, `delta` is `[N]`."""
    return jax.tree.map(lambda leaf: jnp.tensordot(delta.astype(leaf.dtype), leaf, axes=1), perturbation)
