"""Checks of systems, tasks and theta at trace time, at no cost per step.

They raise TypeError with the name of the offending leaf, its type, the rule and a remedy.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final, Literal

import jax
import jax.numpy as jnp

from unspool.params import in_words, is_array, is_of_dtype
from unspool.types import PyTree

Kind = Literal["floating-point number", "integer", "bool"]

_DTYPES: Final[Mapping[Kind, type]] = MappingProxyType(
    {"floating-point number": jnp.floating, "integer": jnp.integer, "bool": jnp.bool_}
)


def check_theta(theta: PyTree) -> None:
    """Reject a theta, of arrays or of their shapes, that cannot be learned by gradients.

    Raises:
        TypeError: a leaf is not a floating-point array.
        ValueError: it holds no number.
    """
    for path, leaf in jax.tree.leaves_with_path(theta):
        if not is_of_dtype(leaf, jnp.floating):
            raise TypeError(
                f"theta{jax.tree_util.keystr(path)} is {in_words(leaf)}: gradients update theta, so its "
                "leaves must be floating-point arrays; keep anything else in the configuration or the state"
            )
    if not any(getattr(leaf, "size", 1) for leaf in jax.tree.leaves(theta)):
        raise ValueError(
            f"theta is empty ({jax.tree.map(in_words, theta)}): there is nothing to meta-train. A learned "
            "optimizer must have an outer parameter; those of learned_optimizer_from_opt have none, "
            "and serve as baselines for training curves"
        )


def check_arrays(what: str, tree: PyTree, remedy: str) -> None:
    """Reject a tree with leaves that are neither arrays nor numbers."""
    for path, leaf in jax.tree.leaves_with_path(tree):
        if not is_array(leaf):
            place = f", at {jax.tree_util.keystr(path)}" if path else ""
            raise TypeError(f"{what} is {in_words(leaf)}{place}: it must be a pytree of arrays; {remedy}")


def check_scalar(what: str, value: Any, kind: Kind, remedy: str) -> None:
    """Reject a value that is not one number of this kind, an array of shape `[]`."""
    if not is_of_dtype(value, _DTYPES[kind]) or jnp.shape(value):
        raise TypeError(f"{what} is {in_words(value)}: it must be one {kind}, of shape []; {remedy}")


def check_unchanged(what: str, before: PyTree, after: PyTree) -> None:
    """Reject a carried tree whose structure, shapes or dtypes changed."""
    old = {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree.leaves_with_path(before)}
    new = {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree.leaves_with_path(after)}
    for place in dict.fromkeys([*old, *new]):
        was, became = (in_words(tree[place]) if place in tree else "missing" for tree in (old, new))
        if was != became:
            raise TypeError(
                f"{what}{place} was {was} and became {became}: carried state must keep its "
                "structure, shapes and dtypes; cast or reshape it, or start with the later type"
            )
    structures = [str(jax.tree.structure(tree)) for tree in (before, after)]
    if structures[0] != structures[1]:
        raise TypeError(
            f"{what} had the structure {structures[0]} and now has {structures[1]}: carried "
            "state must keep its structure"
        )
