"""Differentiation of steps whose results are discarded.

`jnp.where(discard, other, computed)` passes a zero cotangent to `computed`, but zero times an infinite
derivative is NaN, which propagates to the inputs of `computed`.
"""

from typing import TypeVar, cast

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool

Tree = TypeVar("Tree")


def not_differentiated(discarded: Bool[Array, ""], inputs: Tree) -> Tree:
    """Return `inputs` for a computation whose result is discarded where `discarded` is True.

    The values are unchanged. Derivatives with respect to floating-point arrays are exactly zero where
    `discarded` is True, in forward and in reverse mode, for any derivatives of the computation. Any number of
    enclosing `vmap`s may batch `discarded`.
    """

    def guarded(leaf: jax.Array) -> jax.Array:
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            return leaf
        return jnp.where(discarded, jax.lax.stop_gradient(leaf), leaf)

    return cast(Tree, jax.tree.map(guarded, inputs))
