"""A conditional under `vmap` that skips a branch that no member of the batch needs.

Under `jax.vmap`, a `lax.cond` with a batched predicate becomes a select that computes both branches. Resets
of an episode and draws of a new length happen once in hundreds of steps, so computing both branches at every
step takes most of the time of a small inner problem.
"""

from collections.abc import Callable
from typing import TypeVar, cast

import jax
import jax.numpy as jnp

from unspool.stable_types import typed_like

Tree = TypeVar("Tree")


@jax.custom_batching.custom_vmap
def _anywhere(pred: jax.Array) -> jax.Array:
    """Return the logical or of `pred` over every axis that `vmap` maps: one value for the whole batch."""
    return pred


@_anywhere.def_vmap
def _anywhere_in_batch(axis_size: int, in_batched: list[bool], pred: jax.Array) -> tuple[jax.Array, bool]:
    del axis_size
    # The recursive call handles the enclosing vmaps.
    return _anywhere(jnp.any(pred, axis=0) if in_batched[0] else pred), False


def lazy_cond(pred: jax.Array, make: Callable[[], Tree], otherwise: Tree) -> Tree:
    """Return `make()` where `pred` is True, else `otherwise`; run `make` only if some member needs it.

    Any number of enclosing `vmap`s may batch `pred`, bool `[]`. The pure function `make` returns the
    structure and shapes of `otherwise`; keys it closes over are consumed only where `pred` is True.
    """

    def blend() -> Tree:
        made = typed_like(make(), otherwise)
        return cast(Tree, jax.tree.map(lambda new, old: jnp.where(pred, new, old), made, otherwise))

    return cast(Tree, jax.lax.cond(_anywhere(jax.lax.stop_gradient(pred)), blend, lambda: otherwise))
