"""Means with a fixed order of summation, and tests for finite values."""

import functools
from collections.abc import Iterable, Sequence

import jax
import jax.numpy as jnp

from unspool.types import PyTree


def pairwise_sum(terms: Sequence[jax.Array]) -> jax.Array:
    """Return the sum by a balanced tree over the order of `terms`; the fixed association gives fixed bits."""
    if len(terms) == 1:
        return terms[0]
    middle = len(terms) // 2
    return pairwise_sum(terms[:middle]) + pairwise_sum(terms[middle:])


def weighted_means(trees: Sequence[PyTree], weights: Sequence[jax.Array]) -> tuple[PyTree, jax.Array]:
    """Return the mean of `trees` by `weights`, and the sum of the weights; zeros if that is zero.

    The values of a tree with weight zero are arbitrary.
    """
    total = pairwise_sum(weights)

    def mean(*leaves: jax.Array) -> jax.Array:
        # `where`, not a product: zero times NaN is NaN.
        weighted = [
            jnp.where(weight > 0, weight * leaf, 0.0) for leaf, weight in zip(leaves, weights, strict=True)
        ]
        return jnp.where(total > 0, pairwise_sum(weighted) / jnp.where(total > 0, total, 1.0), 0.0)

    return jax.tree.map(mean, *trees), total


def all_finite(tree: PyTree) -> jax.Array:
    """Return whether `tree` holds no infinity and no NaN."""
    return _all(jnp.isfinite(leaf) for leaf in _inexact_leaves(tree))


def stays_finite(before: PyTree, after: PyTree) -> jax.Array:
    """Return whether every number that is finite in `before` is finite in `after`.

    Numbers that start infinite are allowed: some optimizers start so on purpose, for example with the best
    loss so far.
    """
    pairs = zip(_inexact_leaves(before), _inexact_leaves(after), strict=True)
    return _all(jnp.isfinite(new) | ~jnp.isfinite(old) for old, new in pairs)


def _inexact_leaves(tree: PyTree) -> list[jax.Array]:
    """Return the leaves that can hold an infinity: neither integers nor typed keys."""
    leaves = [jnp.asarray(leaf) for leaf in jax.tree.leaves(tree)]
    return [leaf for leaf in leaves if jnp.issubdtype(leaf.dtype, jnp.inexact)]


def _all(conditions: Iterable[jax.Array]) -> jax.Array:
    return functools.reduce(jnp.logical_and, map(jnp.all, conditions), jnp.asarray(True))
