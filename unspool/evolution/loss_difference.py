"""Loss differences of antithetic pairs at each step: masks, weights and the treatment of divergence."""

from typing import Literal, NamedTuple, Self

import jax
import jax.numpy as jnp

from unspool.estimates.long_sums import sum_over_steps
from unspool.types import Theta

Divergence = Literal["mask", "clip", "fail"]
"""The treatment of a task whose loss is not finite. mask: it contributes nothing to this estimate, and is
counted. clip: its loss difference becomes the bound `clip_loss_diff`, with the sign of the worse side. fail:
the estimate is not finite, and aggregation rejects it."""


class Sides(NamedTuple):
    """Losses under a perturbation and its negative, before weights and policy; leaves `[T, N]`.

    Attributes:
        delta: the loss under the perturbation minus the loss under its negative, or the limit for small
            perturbations.
        mean: the mean of both losses.
        finite: bool, whether both losses and their difference are finite.
        worse: the sign of the side that is not finite; zero if both or neither are.
        known_mean: the mean of the finite losses; arbitrary where `known` is False.
        known: bool, whether at least one loss is finite.
    """

    delta: jax.Array
    mean: jax.Array
    finite: jax.Array
    worse: jax.Array
    known_mean: jax.Array
    known: jax.Array

    @classmethod
    def of_pair(cls, pos: jax.Array, neg: jax.Array, delta: jax.Array | None = None) -> Self:
        """Return the sides of an antithetic pair; `delta` is their difference, if known more precisely."""
        delta = pos - neg if delta is None else delta
        pos_finite, neg_finite = jnp.isfinite(pos), jnp.isfinite(neg)
        both = pos_finite & neg_finite
        # The difference of two finite losses may overflow.
        finite = both & jnp.isfinite(delta)
        one_sided = neg_finite.astype(pos.dtype) - pos_finite.astype(pos.dtype)
        mean = pos / 2 + neg / 2  # pos + neg may overflow
        return cls(
            delta,
            mean,
            finite,
            jnp.where(both & ~finite, jnp.sign(delta), one_sided),
            jnp.where(both, mean, jnp.where(pos_finite, pos, neg)),
            pos_finite | neg_finite,
        )

    @classmethod
    def of_derivative(cls, loss: jax.Array, derivative: jax.Array) -> Self:
        """Return the sides of a loss and its directional derivative, the limit of `delta / 2`."""
        known = jnp.isfinite(loss)
        finite = known & jnp.isfinite(derivative)
        return cls(2 * derivative, loss, finite, jnp.zeros_like(loss), loss, known)


class LossDifference(NamedTuple):
    """Loss differences at each step, after weights and the divergence policy are applied.

    Attributes:
        delta: `[T, N]`, weighted differences; zero where the loss is masked or its unroll excluded.
        counts: `[N]` bool; False for unrolls that are excluded because they diverged.
        mean_loss: `[]`, weighted mean over valid losses; for reports only, not the objective.
        mean_size: `[]`, mean absolute difference.
        weight: `[]` float32, the number of unrolls that count; zero if they have no loss.
        diverged: `[N]` bool.
        clipped: `[]` int32, the number of differences that exceeded the bound.
    """

    delta: jax.Array
    counts: jax.Array
    mean_loss: jax.Array
    mean_size: jax.Array
    weight: jax.Array
    diverged: jax.Array
    clipped: jax.Array

    def mean_over_unrolls(self, total: jax.Array) -> jax.Array:
        """Return the mean over the unrolls that count, from their sum `total`."""
        return masked_mean(total, jnp.sum(self.counts).astype(total.dtype))


class Policy(NamedTuple):
    """The treatment of losses that are not finite and of large differences, by options of `PairOptions`."""

    divergence: Divergence
    clip_loss_diff: float | None
    sign_delta_loss_scalar: float | None


def loss_difference(
    sides: Sides, mask: jax.Array, is_done: jax.Array, weights: jax.Array | None, policy: Policy
) -> LossDifference:
    """Apply masks, weights and the policy to `sides`.

    Args:
        sides: leaves `[T, N]`.
        mask: `[T, N]` bool; False for steps without a loss.
        is_done: `[T, N]` bool; True at the last step of an episode.
        weights: `[T, N]`, the weights; None for equal weights.
        policy: the treatment of losses that are not finite and of large differences.
    """
    diverged = jnp.any(mask & ~sides.finite, axis=0)
    counts = ~diverged if policy.divergence == "mask" else jnp.ones_like(diverged)
    valid = mask & counts[None]
    counted = valid.astype(sides.delta.dtype)
    # `where`, not a product: zero times NaN is NaN.
    counted = counted if weights is None else jnp.where(valid, weights, 0).astype(sides.delta.dtype)
    delta, clipped = _bounded(sides, valid, policy)
    delta = jnp.where(valid, counted * delta, 0)
    mean, has_mean = (
        (sides.known_mean, valid & sides.known) if policy.divergence == "clip" else (sides.mean, valid)
    )
    if policy.sign_delta_loss_scalar is not None:
        delta = counted * jnp.sign(_sum_of_own_episode(delta, is_done)) * policy.sign_delta_loss_scalar
    return LossDifference(
        delta=delta,
        counts=counts,
        mean_loss=_weighted_mean(mean, has_mean, counted),
        mean_size=_weighted_mean(jnp.abs(delta), valid, jnp.ones_like(delta)),
        weight=jnp.where(jnp.any(has_mean), jnp.sum(counts).astype(jnp.float32), 0),
        diverged=diverged,
        clipped=clipped,
    )


def _bounded(sides: Sides, valid: jax.Array, policy: Policy) -> tuple[jax.Array, jax.Array]:
    """Return the differences `[T, N]` clipped to the bound, and the number that exceeded it."""
    delta, bound = sides.delta, policy.clip_loss_diff
    if policy.divergence == "fail":  # a bound or a sign must not make an infinite difference finite
        delta = jnp.where(sides.finite, delta, jnp.nan)
    if bound is None:
        return delta, jnp.zeros((), jnp.int32)
    if policy.divergence == "clip":
        delta = jnp.where(sides.finite, delta, sides.worse * bound)
    clipped = jnp.sum(valid & (jnp.abs(delta) > bound), dtype=jnp.int32)
    return jnp.clip(delta, -bound, bound), clipped


def steps_after_an_end(is_done: jax.Array) -> jax.Array:
    """Return the number of episodes that ended before each step, `[T, N]` int32.

    The count is exclusive: the step that ends an episode still belongs to it.
    """
    ends = is_done.astype(jnp.int32)
    return jnp.cumsum(ends, axis=0) - ends


def _sum_of_own_episode(delta: jax.Array, is_done: jax.Array) -> jax.Array:
    """Return, for each step `[T, N]`, the sum of the differences over its episode."""

    def of_unroll(delta: jax.Array, episode: jax.Array) -> jax.Array:
        return jax.ops.segment_sum(delta, episode, num_segments=len(delta))[episode]

    of_unrolls = jax.vmap(of_unroll, in_axes=1, out_axes=1)
    return of_unrolls(delta, steps_after_an_end(is_done))


def _weighted_mean(of_steps: jax.Array, valid: jax.Array, weights: jax.Array) -> jax.Array:
    weights = jnp.where(valid, weights, 0)
    terms = jnp.where(valid, weights * of_steps, 0)
    total, weight = (jnp.sum(sum_over_steps(part)) for part in (terms, weights))
    return masked_mean(total, weight)


def masked_mean(total: jax.Array, weight: jax.Array) -> jax.Array:
    """Return `total / weight`, or zero if the weight is zero."""
    # The inner `where` keeps derivatives finite for a weight of zero.
    return jnp.where(weight > 0, total / jnp.where(weight > 0, weight, 1), jnp.zeros_like(total))


def weighted_noise_sum(perturbation: Theta, delta: jax.Array) -> Theta:
    """Return `sum_i perturbation_i delta_i`; `perturbation` has leaves `[N, ...]`, `delta` is `[N]`."""
    return jax.tree.map(lambda leaf: jnp.tensordot(delta.astype(leaf.dtype), leaf, axes=1), perturbation)
