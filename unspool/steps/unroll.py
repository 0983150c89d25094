"""Unrolls of a system: one unroll per task, or an antithetic pair."""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar, cast

import jax
import jax.numpy as jnp

from unspool.outer_trainers.truncated_step import (
    ResidentData,
    TruncatedUnrollOut,
    UnrollState,
    VectorizedStep,
)
from unspool.steps.vectorized_step import StepContext
from unspool.types import Batch, PRNGKey, PyTree, StepKey, Theta

Tree = TypeVar("Tree")


class Inputs(NamedTuple):
    """The inputs of all steps of an unroll, besides theta, state and key.

    Attributes:
        data: `ResidentData`, or batches with leaves `[num_steps, N, ...]`.
        outer_state: passed to the step.
        num_steps_override: the episode's length, if the step's own schedule has none.
    """

    data: Batch
    outer_state: Any
    num_steps_override: jax.Array | int | None = None

    def context(self, *, theta_is_vector: bool = True) -> StepContext:
        """Return the inputs that all steps share."""
        return StepContext(self.outer_state, theta_is_vector, self.num_steps_override)

    def streamed(self) -> Batch | None:
        """Return the batches that a scan over steps slices; None if data is resident."""
        return None if isinstance(self.data, ResidentData) else self.data

    def of_step(self, batch: Batch | None) -> Batch:
        """Return the data of one step, from the scan's slice of `streamed()`."""
        return self.data if isinstance(self.data, ResidentData) else batch


def unroll(
    step: VectorizedStep,
    theta: Theta,
    state: UnrollState,
    key: PRNGKey,
    num_steps: int,
    inputs: Inputs,
    *,
    theta_is_vector: bool,
) -> tuple[UnrollState, TruncatedUnrollOut]:
    """Unroll `num_steps` steps of every task; leaves of the output are `[num_steps, N, ...]`. Consumes `key`.

    Leaves of `state` lead with `[N]`, and with `theta_is_vector` those of theta as well.
    """

    def one_step(state: UnrollState, xs: tuple[StepKey, Batch]) -> tuple[UnrollState, TruncatedUnrollOut]:
        step_key, batch = xs
        return step.step_tasks(theta, state, step_key, inputs.of_step(batch), context)

    context = inputs.context(theta_is_vector=theta_is_vector)
    keys = step.keys_of_steps(jax.random.split(key, num_steps))
    state, out = jax.lax.scan(one_step, state, (keys, inputs.streamed()), length=num_steps)
    return state, out


class Pair(NamedTuple):
    """The values of both members of an antithetic pair."""

    pos: PyTree
    neg: PyTree


def antithetic_thetas(theta: Theta, noise: Theta) -> Pair:
    """Return `theta + noise` and `theta - noise`, leaves `[N, ...]` like those of `noise`."""
    theta = jax.tree.map(lambda leaf: jnp.expand_dims(leaf, 0), theta)
    return Pair(jax.tree.map(jnp.add, theta, noise), jax.tree.map(jnp.subtract, theta, noise))


def antithetic_unroll(
    step: VectorizedStep,
    theta: Pair,
    state: Pair,
    key: PRNGKey,
    num_steps: int,
    inputs: Inputs,
    *,
    stacked: bool,
) -> tuple[Pair, TruncatedUnrollOut]:
    """Unroll both members with the same key and data; leaves of the output are `[2, num_steps, N, ...]`.

    The positive member comes first. With `stacked` they run as one unroll of twice the width, and values that
    do not depend on theta (keys, batches) are computed once; else one after the other, in half the memory.
    """

    def one_member(theta: Theta, state: UnrollState) -> tuple[UnrollState, TruncatedUnrollOut]:
        return unroll(step, theta, state, key, num_steps, inputs, theta_is_vector=True)

    return for_both(one_member, theta, state, stacked=stacked)


def antithetic_step(
    step: VectorizedStep,
    theta: Pair,
    state: Pair,
    key: StepKey,
    batch: Batch,
    inputs: Inputs,
    *,
    stacked: bool,
) -> tuple[Pair, TruncatedUnrollOut]:
    """Step both members; `key` is one of `step.keys_of_steps`. Leaves of the output are `[2, N, ...]`."""

    def one_member(theta: Theta, state: UnrollState) -> tuple[UnrollState, TruncatedUnrollOut]:
        return step.step_tasks(theta, state, key, batch, inputs.context())

    return for_both(one_member, theta, state, stacked=stacked)


def for_both(
    member: Callable[[Theta, UnrollState], tuple[UnrollState, TruncatedUnrollOut]],
    theta: Pair,
    state: Pair,
    *,
    stacked: bool,
) -> tuple[Pair, TruncatedUnrollOut]:
    """Apply `member` to both; return the states as a pair, and the outputs stacked."""
    thetas, states = stack_pair(theta), stack_pair(state)
    if stacked:
        states, out = jax.vmap(member)(thetas, states)
    else:
        states, out = jax.lax.map(lambda both: member(*both), (thetas, states))
    return Pair(one_side(states, 0), one_side(states, 1)), out


def stack_pair(pair: Pair) -> PyTree:
    """Return the pair as leaves `[2, ...]`, positive first."""
    return jax.tree.map(lambda pos, neg: jnp.stack([pos, neg]), pair.pos, pair.neg)


def one_side(tree: Tree, side: int) -> Tree:
    """Return one member of a stacked pair: 0 is the positive one."""
    return cast(Tree, jax.tree.map(lambda leaf: leaf[side], tree))


def zeros_like_result(fn: Callable[..., Tree], *args: jax.Array) -> Tree:
    """Return zeros in the structure, shapes and dtypes of `fn(*args)`, which is traced but not computed."""
    shapes = jax.eval_shape(fn, *args)
    return cast(Tree, jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes))


def where_tasks(condition: jax.Array, one: Tree, other: Tree) -> Tree:
    """Return `jnp.where` with a condition `[N]` on trees with leaves `[N, ...]`."""

    def chosen(one: jax.Array, other: jax.Array) -> jax.Array:
        return jnp.where(condition.reshape(-1, *(1,) * (one.ndim - 1)), one, other)

    return cast(Tree, jax.tree.map(chosen, one, other))
