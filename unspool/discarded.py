"""Steps that are computed and thrown away, under backpropagation.

`jnp.where(discard, other, computed)` hands a cotangent of zero to `computed`, but zero times an infinite
derivative inside it is NaN, which reaches whatever it was computed from.
"""

from typing import TypeVar, cast

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool

Tree = TypeVar("Tree")


def not_differentiated(discarded: Bool[Array, ""], inputs: Tree) -> Tree:
    """`inputs` for a computation whose result is thrown away where `discarded` holds.

    The values are the same. Derivatives with respect to them are exactly zero where `discarded` holds, in
    forward and in reverse mode, whatever the computation's own derivatives are.

    Args:
        discarded: `[]` bool, batched by any number of enclosing `vmap`s.
        inputs: a pytree of arrays; what is no floating-point array is left alone.
    """

    def guarded(leaf: jax.Array) -> jax.Array:
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            return leaf
        return jnp.where(discarded, jax.lax.stop_gradient(leaf), leaf)

    return cast(Tree, jax.tree.map(guarded, inputs))
