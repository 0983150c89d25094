"""Several unrolls of each task, alike in everything but theta."""

import dataclasses
from typing import TypeVar, cast

import jax
import jax.numpy as jnp

from unspool.outer_trainers.truncated_step import OuterState, TruncatedUnrollOut, UnrollState
from unspool.outer_trainers.wrapped_step import WrappedStep
from unspool.types import Batch, PRNGKey, Theta

Tree = TypeVar("Tree")


@dataclasses.dataclass(frozen=True)
class RepeatedStep(WrappedStep):
    """Unrolls each task of a step `copies` times, with the same keys and data.

    Copies of a task stand together: leaves of a state lead with `[step.num_tasks * copies]`. Their tasks,
    initial states and episodes are the same as long as these do not depend on theta.

    Attributes:
        step: the system.
        copies: unrolls of each task.
    """

    copies: int

    @property
    def num_tasks(self) -> int:  # type: ignore[override]  # a plain attribute of the class above
        """Unrolls in all."""
        return self.step.num_tasks * self.copies

    def init_step_state(
        self,
        theta: Theta,
        outer_state: OuterState,
        key: PRNGKey,
        theta_is_vector: bool = False,
        num_steps_override: jax.Array | int | None = None,
    ) -> UnrollState:
        def init(theta: Theta) -> UnrollState:
            return self.step.init_step_state(theta, outer_state, key, theta_is_vector, num_steps_override)

        if theta_is_vector:
            return joined(jax.vmap(init, in_axes=1, out_axes=1)(apart(theta, self.copies)))
        return jax.tree.map(lambda leaf: jnp.repeat(leaf, self.copies, axis=0), init(theta))

    def unroll_step(
        self,
        theta: Theta,
        unroll_state: UnrollState,
        key: PRNGKey,
        data: Batch,
        outer_state: OuterState,
        theta_is_vector: bool = False,
        override_num_steps: jax.Array | int | None = None,
    ) -> tuple[UnrollState, TruncatedUnrollOut]:
        def one_copy(theta: Theta, state: UnrollState) -> tuple[UnrollState, TruncatedUnrollOut]:
            return self.step.unroll_step(
                theta, state, key, data, outer_state, theta_is_vector, override_num_steps
            )

        thetas = apart(theta, self.copies) if theta_is_vector else theta
        step = jax.vmap(one_copy, in_axes=(1 if theta_is_vector else None, 1), out_axes=1)
        return joined(step(thetas, apart(unroll_state, self.copies)))

    def meta_loss_batch(
        self,
        theta: Theta,
        unroll_state: UnrollState,
        key: PRNGKey,
        data: Batch,
        outer_state: OuterState,
        theta_is_vector: bool = False,
    ) -> jax.Array:
        def one_copy(theta: Theta, state: UnrollState) -> jax.Array:
            return self.step.meta_loss_batch(theta, state, key, data, outer_state, theta_is_vector)

        thetas = apart(theta, self.copies) if theta_is_vector else theta
        losses = jax.vmap(one_copy, in_axes=(1 if theta_is_vector else None, 1), out_axes=1)
        return joined(losses(thetas, apart(unroll_state, self.copies)))


def apart(tree: Tree, copies: int) -> Tree:
    """Leaves `[tasks * copies, ...]` as `[tasks, copies, ...]`: copies of a task stand together."""

    def split(leaf: jax.Array) -> jax.Array:
        # Not -1: a leaf without elements would leave it open how many tasks there are.
        return leaf.reshape(leaf.shape[0] // copies, copies, *leaf.shape[1:])

    return cast(Tree, jax.tree.map(split, tree))


def joined(tree: Tree) -> Tree:
    """The inverse of `apart`."""

    def merged(leaf: jax.Array) -> jax.Array:
        return leaf.reshape(leaf.shape[0] * leaf.shape[1], *leaf.shape[2:])

    return cast(Tree, jax.tree.map(merged, tree))
