"""The names that signatures of the library use for what passes through them."""

from collections.abc import Mapping
from typing import TypeAlias

import jax
import jaxtyping
from jax.typing import ArrayLike
from jaxtyping import Array, Key, Shaped, UInt32

PyTree: TypeAlias = jaxtyping.PyTree
"""Any nesting of containers, with anything at the leaves (arrays, their shapes, their layouts)."""

Arrays: TypeAlias = jaxtyping.PyTree[ArrayLike]
"""Any nesting of containers with arrays or numbers at the leaves."""

PRNGKey: TypeAlias = Key[Array, "..."] | UInt32[Array, "... words"]
"""Random keys of either style: `jax.random.key(0)` or `jax.random.PRNGKey(0)`."""

StepKey: TypeAlias = Arrays
"""A key, or what a step's `keys_of_steps` made of one."""

Scalar: TypeAlias = Shaped[Array, ""]
"""An array of shape `[]`."""

ScalarLike: TypeAlias = Shaped[ArrayLike, ""]
"""An array of shape `[]`, or a number."""

Theta: TypeAlias = Arrays
"""Outer parameters: what meta-training learns. Leaves are floating-point arrays."""

Params: TypeAlias = Arrays
"""Inner parameters: what a learned optimizer trains."""

ModelState: TypeAlias = Arrays
"""What a task carries from step to step without gradients (running averages, say), or None."""

Batch: TypeAlias = Arrays
"""One batch of data; `()` for tasks that use none."""

TaskParams: TypeAlias = Arrays
"""What a task family samples, as a pytree of arrays: the dynamic part of a task's configuration."""

OuterState: TypeAlias = Arrays
"""What of outer training a step may depend on: anything with `.outer_iteration`, or None."""

UnrollState: TypeAlias = Arrays
"""Where an unroll stands: whatever its next step needs."""

Aux: TypeAlias = Mapping[str, jax.Array]
"""Named scalars that a task reports beside its loss."""
