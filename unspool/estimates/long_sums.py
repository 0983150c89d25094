"""Sums over the steps of long episodes in float32.

A plain running total rounds at every addition, in the same direction if the terms are similar. Between two
sums of a hundred thousand losses of about 2, a small difference is off by several per cent.
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
    """A running total in two parts: the rounded sum and its accumulated rounding error.

    The error is about two roundings of the total for any number of terms (Kahan summation, with Knuth's
    formula for the error of each addition). Derivatives are those of a plain sum.

    Attributes:
        total: the rounded sum, a pytree of floating-point arrays.
        lost: the correction to add to `total`.
    """

    total: PyTree
    lost: PyTree

    @classmethod
    def zero_like(cls, term: PyTree) -> Self:
        """Return the sum of no terms."""
        nothing = jax.tree.map(jnp.zeros_like, term)
        return cls(nothing, nothing)

    def plus(self, term: PyTree) -> Self:
        """Return the sum with one more term."""
        return type(self)(
            jax.tree.map(jnp.add, self.total, term), jax.tree.map(_lost, self.lost, self.total, term)
        )

    @property
    def value(self) -> PyTree:
        """The corrected sum."""
        return jax.tree.map(jnp.add, self.total, self.lost)


def _lost(lost: jax.Array, total: jax.Array, term: jax.Array) -> jax.Array:
    """Return the rounding error of all additions, including this one."""
    before, added = jax.lax.stop_gradient((total, term))
    after = before + added
    kept = after - before
    return lost + ((before - (after - kept)) + (added - kept))


def sum_over_steps(terms: jax.Array) -> jax.Array:
    """Return the sum over the first axis by repeated halving, with logarithmic error growth."""
    while len(terms) > _SUMMED_AT_ONCE:
        half = len(terms) // 2
        halves = terms[:half] + terms[half : 2 * half]
        terms = jnp.concatenate([halves, terms[2 * half :]])
    return jnp.sum(terms, axis=0)


def scan_in_blocks(
    step: Callable[[State, Inputs], tuple[State, Out]], state: State, xs: Inputs, num_steps: int
) -> tuple[State, Out]:
    """Run `jax.lax.scan`, for long scans as a scan over blocks of steps.

    Backpropagation then sums the gradient of shared inputs (theta) block by block, with less rounding error.
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
