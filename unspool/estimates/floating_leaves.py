"""The part of a tree that has derivatives."""

import itertools

import jax
import jax.numpy as jnp

from unspool.types import PyTree


class FloatingLeaves:
    """The floating-point leaves of a tree apart from the others, which have no derivatives."""

    def __init__(self, tree: PyTree) -> None:
        self._leaves, self._treedef = jax.tree.flatten(tree)
        self._is_floating = [jnp.issubdtype(leaf.dtype, jnp.floating) for leaf in self._leaves]

    @property
    def floating(self) -> list[jax.Array]:
        return list(itertools.compress(self._leaves, self._is_floating))

    def joined(self, floating: list[jax.Array]) -> PyTree:
        """The tree with other floating-point leaves."""
        replacements = iter(floating)
        leaves = [
            next(replacements) if is_floating else leaf
            for leaf, is_floating in zip(self._leaves, self._is_floating, strict=True)
        ]
        return jax.tree.unflatten(self._treedef, leaves)
