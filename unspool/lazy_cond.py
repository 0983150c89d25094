"""Conditional work that is skipped unless some member of a batch needs it.

Under `jax.vmap` a `lax.cond` with a batched predicate becomes a select that computes both branches. Resets of
an episode and draws of a new length happen at one step in hundreds, so computing both branches at every step
is most of the time of a small inner problem.
"""

from collections.abc import Callable
from typing import TypeVar, cast

import jax
import jax.numpy as jnp

from unspool.stable_types import typed_like

Tree = TypeVar("Tree")


@jax.custom_batching.custom_vmap
def _anywhere(pred: jax.Array) -> jax.Array:
    """`pred`, or-ed over every axis that `vmap` maps: one value for all members of a batch."""
    return pred


@_anywhere.def_vmap
def _anywhere_in_batch(axis_size: int, in_batched: list[bool], pred: jax.Array) -> tuple[jax.Array, bool]:
    del axis_size
    # Called again on the result, for the vmaps around this one.
    return _anywhere(jnp.any(pred, axis=0) if in_batched[0] else pred), False


def lazy_cond(pred: jax.Array, make: Callable[[], Tree], otherwise: Tree) -> Tree:
    """`make()` where `pred` holds, `otherwise` elsewhere; `make` runs only if `pred` holds for some member of
    the batch.

    Args:
        pred: boolean `[]`, batched by any number of enclosing `vmap`s.
        make: a pure function with the structure and shapes of `otherwise`; keys it closes over are consumed
            only where `pred` holds.
        otherwise: the value where `pred` is false.
    """

    def blend() -> Tree:
        made = typed_like(make(), otherwise)
        return cast(Tree, jax.tree.map(lambda new, old: jnp.where(pred, new, old), made, otherwise))

    return cast(Tree, jax.lax.cond(_anywhere(jax.lax.stop_gradient(pred)), blend, lambda: otherwise))
