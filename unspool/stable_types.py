"""Keep a carried pytree's types fixed from step to step.

`jax.lax.scan` demands it, and a jitted step whose output differs from its input in nothing but a weak type
is compiled a second time.
"""

from typing import TypeVar

import jax
import jax.numpy as jnp

Tree = TypeVar("Tree")


def strongly_typed(tree: Tree) -> Tree:
    """Return `tree` with every leaf an array of the same dtype, and none of them weakly typed."""

    def strong(leaf: jax.typing.ArrayLike) -> jax.Array:
        array = jnp.asarray(leaf)
        # A new-style key has an extended dtype: never weak, and not convertible.
        if jnp.issubdtype(array.dtype, jax.dtypes.extended):
            return array
        return jax.lax.convert_element_type(array, array.dtype)

    result: Tree = jax.tree.map(strong, tree)
    return result


def typed_like(tree: Tree, reference: Tree) -> Tree:
    """Return `tree` with every leaf cast to the dtype of its counterpart in `reference`."""

    def cast(leaf: jax.Array, like: jax.Array) -> jax.Array:
        if leaf.dtype == like.dtype and not leaf.weak_type:
            return leaf
        return jax.lax.convert_element_type(leaf, like.dtype)

    result: Tree = jax.tree.map(cast, tree, reference)
    return result
