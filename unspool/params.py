"""Parameters of optimizers: pytrees of floating-point arrays."""

import jax
import jax.numpy as jnp

from unspool.stable_types import strongly_typed
from unspool.types import Params


def as_params(params: Params, what: str = "params") -> Params:
    """Return `params`, a pytree of differentiable arrays or numbers, with strongly typed arrays as leaves.

    Raises:
        TypeError: a leaf is neither floating-point nor complex; names `what`, its path and its type.
    """
    for path, leaf in jax.tree.leaves_with_path(params):
        if not is_of_dtype(leaf, jnp.inexact):
            raise TypeError(
                f"{what}{jax.tree_util.keystr(path)} is {in_words(leaf)}: gradients update parameters, so "
                "their leaves must be floating-point arrays; convert it to one (jnp.float32), or keep it "
                "in the task's model state"
            )
    return strongly_typed(params)


def is_of_dtype(leaf: object, kind: type) -> bool:
    """Return whether `leaf` is an array or number of this kind, such as `jnp.floating`."""
    return is_array(leaf) and bool(jnp.issubdtype(jax.typeof(leaf).dtype, kind))


def is_array(leaf: object) -> bool:
    """Return whether `leaf` is an array or a Python number."""
    try:
        jax.typeof(leaf)
    except TypeError:
        return False
    return True


def in_words(leaf: object) -> str:
    """Return a description of `leaf` for messages: `float32[3]`, or `a str` if it is not an array."""
    if not is_array(leaf):
        return f"a {type(leaf).__name__}"
    aval = jax.typeof(leaf)
    return f"{aval.dtype}[{','.join(map(str, aval.shape))}]"
