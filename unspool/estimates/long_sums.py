"""Sums over the steps of long episodes in float32.

A plain running total loses a term's last bits at every addition, always in the same direction where the terms
are alike: a hundred thousand losses of about 2 are off by several per cent of their small differences.
"""

from collections.abc import Callable
from typing import NamedTuple, Self, TypeVar

import jax
import jax.numpy as jnp

from unspool.types import PyTree

_SUMMED_AT_ONCE = 64
_STEPS_IN_BLOCK = 256

State = TypeVar("State")
Out = TypeVar("Out")
Inputs = TypeVar("Inputs")


class RunningSum(NamedTuple):
    """A running total in two parts, of which the second holds what the first has rounded away.

    The error stays at about two roundings of the total, however many terms there are (Kahan's summation, with
    the error of each addition by Knuth's formula). Derivatives are those of a plain sum.

    Attributes:
        total: the rounded sum, a pytree of floating-point arrays.
        lost: what must be added to it.
    """

    total: PyTree
    lost: PyTree

    @classmethod
    def zero_like(cls, term: PyTree) -> Self:
        """The sum of no terms."""
        nothing = jax.tree.map(jnp.zeros_like, term)
        return cls(nothing, nothing)

    def plus(self, term: PyTree) -> Self:
        """One term more."""
        return type(self)(
            jax.tree.map(jnp.add, self.total, term), jax.tree.map(_lost, self.lost, self.total, term)
        )

    @property
    def value(self) -> PyTree:
        """The sum."""
        return jax.tree.map(jnp.add, self.total, self.lost)


def _lost(lost: jax.Array, total: jax.Array, term: jax.Array) -> jax.Array:
    """What all additions have rounded away, this one included."""
    before, added = jax.lax.stop_gradient((total, term))
    after = before + added
    kept = after - before
    return lost + ((before - (after - kept)) + (added - kept))


def sum_over_steps(terms: jax.Array) -> jax.Array:
    """The sum over the first axis, by halving it: rounding errors grow with its length's logarithm."""
    while len(terms) > _SUMMED_AT_ONCE:
        half = len(terms) // 2
        halves = terms[:half] + terms[half : 2 * half]
        terms = jnp.concatenate([halves, terms[2 * half :]])
    return jnp.sum(terms, axis=0)


def scan_in_blocks(
    step: Callable[[State, Inputs], tuple[State, Out]], state: State, xs: Inputs, num_steps: int
) -> tuple[State, Out]:
    """`jax.lax.scan`, as a scan over blocks of steps where there are many.

    Backpropagation sums the gradient with respect to what all steps share (theta) block by block.
    """
    num_blocks, rest = divmod(num_steps, _STEPS_IN_BLOCK)
    if num_blocks < 2:
        state, out = jax.lax.scan(step, state, xs, length=num_steps)
        return state, out

    def block(state: State, xs: Inputs) -> tuple[State, Out]:
        state, out = jax.lax.scan(step, state, xs, length=_STEPS_IN_BLOCK)
        return state, out

    in_blocks = num_blocks * _STEPS_IN_BLOCK
    blocks = jax.tree.map(
        lambda leaf: leaf[:in_blocks].reshape(num_blocks, _STEPS_IN_BLOCK, *leaf.shape[1:]), xs
    )
    state, out = jax.lax.scan(block, state, blocks, length=num_blocks)
    out = jax.tree.map(lambda leaf: leaf.reshape(in_blocks, *leaf.shape[2:]), out)
    if rest:
        state, last = jax.lax.scan(step, state, jax.tree.map(lambda leaf: leaf[in_blocks:], xs), length=rest)
        out = jax.tree.map(lambda *leaves: jnp.concatenate(leaves), out, last)
    return state, out
