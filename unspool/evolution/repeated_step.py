"""Several unrolls of each task that differ only in theta."""

import dataclasses
from collections.abc import Callable
from typing import TypeVar, cast

import jax
import jax.numpy as jnp

from unspool.steps.step_outputs import TruncatedUnrollOut
from unspool.steps.vectorized_step import StepContext
from unspool.steps.wrapped_step import WrappedStep
from unspool.types import Batch, PRNGKey, StepKey, Theta, UnrollState

Tree = TypeVar("Tree")


@dataclasses.dataclass(frozen=True)
class RepeatedStep(WrappedStep):
    """A step that unrolls each task of `step` `copies` times, with the same keys and data.

    Copies of a task are adjacent: leaves of a state lead with `[step.num_tasks * copies]`. Copies have
    the same task, initial state and episodes if these do not depend on theta.
    """

    copies: int

    @property
    def num_tasks(self) -> int:  # type: ignore[override]  # the base class declares a plain attribute
        return self.step.num_tasks * self.copies

    def keys_of_steps(self, keys: PRNGKey) -> StepKey:
        return self.step.keys_of_steps(keys)

    def init_tasks(self, theta: Theta, key: PRNGKey, context: StepContext) -> UnrollState:
        def init(theta: Theta) -> UnrollState:
            return self.step.init_tasks(theta, key, context)

        if context.theta_is_vector:
            return joined(jax.vmap(init, in_axes=1, out_axes=1)(apart(theta, self.copies)))
        return jax.tree.map(lambda leaf: jnp.repeat(leaf, self.copies, axis=0), init(theta))

    def step_tasks(
        self, theta: Theta, state: UnrollState, key: StepKey, data: Batch, context: StepContext
    ) -> tuple[UnrollState, TruncatedUnrollOut]:
        def one_copy(theta: Theta, state: UnrollState) -> tuple[UnrollState, TruncatedUnrollOut]:
            return self.step.step_tasks(theta, state, key, data, context)

        return self._of_copies(one_copy, theta, state, context)

    def meta_losses(
        self, theta: Theta, state: UnrollState, key: PRNGKey, data: Batch, context: StepContext
    ) -> jax.Array:
        def one_copy(theta: Theta, state: UnrollState) -> jax.Array:
            return self.step.meta_losses(theta, state, key, data, context)

        return self._of_copies(one_copy, theta, state, context)

    def _of_copies(
        self, fn: Callable[[Theta, UnrollState], Tree], theta: Theta, state: UnrollState, context: StepContext
    ) -> Tree:
        """Map `fn` over the copies, which are axis 1, next to the axis of tasks."""
        thetas = apart(theta, self.copies) if context.theta_is_vector else theta
        copies = jax.vmap(fn, in_axes=(1 if context.theta_is_vector else None, 1), out_axes=1)
        return joined(copies(thetas, apart(state, self.copies)))


def apart(tree: Tree, copies: int) -> Tree:
    """Reshape leaves `[tasks * copies, ...]` to `[tasks, copies, ...]`."""

    def split(leaf: jax.Array) -> jax.Array:
        # Not -1: the number of tasks is ambiguous for a leaf without elements.
        return leaf.reshape(leaf.shape[0] // copies, copies, *leaf.shape[1:])

    return cast(Tree, jax.tree.map(split, tree))


def joined(tree: Tree) -> Tree:
    """Reshape leaves `[tasks, copies, ...]` to `[tasks * copies, ...]`, the inverse of `apart`."""

    def merged(leaf: jax.Array) -> jax.Array:
        return leaf.reshape(leaf.shape[0] * leaf.shape[1], *leaf.shape[2:])

    return cast(Tree, jax.tree.map(merged, tree))
