"""Fixed dtypes for carried pytrees.

`jax.lax.scan` requires them, and a jitted step whose output differs from its input only in a weak type is
compiled a second time.
"""

from typing import Any, TypeVar

import jax
import jax.numpy as jnp

Tree = TypeVar("Tree")


def strongly_typed(tree: Tree) -> Tree:
    """Return `tree` with every leaf as a strongly typed array of the same dtype."""
    result: Tree = jax.tree.map(lambda leaf: _converted(leaf, jnp.asarray(leaf).dtype), tree)
    return result


def typed_like(tree: Tree, reference: Tree) -> Tree:
    """Return `tree` with every leaf cast to its dtype in `reference`, strongly typed."""
    result: Tree = jax.tree.map(lambda leaf, like: _converted(leaf, like.dtype), tree, reference)
    return result


def _converted(leaf: jax.typing.ArrayLike, dtype: Any) -> jax.Array:
    array = jnp.asarray(leaf)
    # A typed key has an extended dtype, which is never weak and cannot be converted.
    if jnp.issubdtype(array.dtype, jax.dtypes.extended):
        return array
    return jax.lax.convert_element_type(array, dtype)
