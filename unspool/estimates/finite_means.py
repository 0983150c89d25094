"""Means whose bits do not depend on how a sum is split, and tests of what is finite."""

import functools
from collections.abc import Iterable, Sequence

import jax
import jax.numpy as jnp

from unspool.types import PyTree


def pairwise_sum(terms: Sequence[jax.Array]) -> jax.Array:
    """The sum by a balanced tree over the order of `terms`: fixed association, hence fixed bits."""
    if len(terms) == 1:
        return terms[0]
    middle = len(terms) // 2
    return pairwise_sum(terms[:middle]) + pairwise_sum(terms[middle:])


def weighted_mean(leaves: Sequence[jax.Array], weights: Sequence[jax.Array], total: jax.Array) -> jax.Array:
    """The mean of `leaves` by `weights`, whose sum is `total`; zero if that is zero.

    A leaf of weight zero may hold anything.
    """
    # `where`, not a product: zero times NaN is NaN.
    weighted = [
        jnp.where(weight > 0, weight * leaf, 0.0) for leaf, weight in zip(leaves, weights, strict=True)
    ]
    return jnp.where(total > 0, pairwise_sum(weighted) / jnp.where(total > 0, total, 1.0), 0.0)


def all_finite(tree: PyTree) -> jax.Array:
    """Whether no leaf of `tree` holds an infinity or NaN."""
    return _all(jnp.isfinite(leaf) for leaf in _inexact_leaves(tree))


def stays_finite(before: PyTree, after: PyTree) -> jax.Array:
    """Whether every number that is finite in `before` is so in `after`.

    Some optimizers start from an infinity on purpose, such as that of the best loss so far.
    """
    pairs = zip(_inexact_leaves(before), _inexact_leaves(after), strict=True)
    return _all(jnp.isfinite(new) | ~jnp.isfinite(old) for old, new in pairs)


def _inexact_leaves(tree: PyTree) -> list[jax.Array]:
    """The leaves that can hold an infinity: neither integers nor typed keys."""
    leaves = [jnp.asarray(leaf) for leaf in jax.tree.leaves(tree)]
    return [leaf for leaf in leaves if jnp.issubdtype(leaf.dtype, jnp.inexact)]


def _all(conditions: Iterable[jax.Array]) -> jax.Array:
    return functools.reduce(jnp.logical_and, map(jnp.all, conditions), jnp.asarray(True))
