"""Keep a carried pytree's types fixed from step to step.

`jax.lax.scan` demands it, and a jitted step whose output differs from its input in nothing but a weak type
is compiled a second time.
"""

from typing import Any, TypeVar

import jax
import jax.numpy as jnp

Tree = TypeVar("Tree")


def strongly_typed(tree: Tree) -> Tree:
    """Return `tree` with every leaf an array of the same dtype, and none of them weakly typed."""
    result: Tree = jax.tree.map(lambda leaf: _converted(leaf, jnp.asarray(leaf).dtype), tree)
    return result


def typed_like(tree: Tree, reference: Tree) -> Tree:
    """Return `tree` with every leaf cast to the dtype of its counterpart in `reference`, strongly typed."""
    result: Tree = jax.tree.map(lambda leaf, like: _converted(leaf, like.dtype), tree, reference)
    return result


def _converted(leaf: jax.typing.ArrayLike, dtype: Any) -> jax.Array:
    array = jnp.asarray(leaf)
    # A new-style key has an extended dtype: it is never weak, and cannot be converted.
    if jnp.issubdtype(array.dtype, jax.dtypes.extended):
        return array
    return jax.lax.convert_element_type(array, dtype)
