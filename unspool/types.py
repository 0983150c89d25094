"""Type aliases for the library's signatures."""

from collections.abc import Mapping
from typing import TypeAlias

import jax
import jaxtyping
from jax.typing import ArrayLike
from jaxtyping import Array, Key, Shaped, UInt32

PyTree: TypeAlias = jaxtyping.PyTree
"""Any nesting of containers, with leaves of any type (arrays, their shapes, their shardings)."""

Arrays: TypeAlias = jaxtyping.PyTree[ArrayLike]
"""Any nesting of containers with arrays or numbers at the leaves."""

PRNGKey: TypeAlias = Key[Array, "..."] | UInt32[Array, "... words"]
"""Random keys of either style: `jax.random.key(0)` or `jax.random.PRNGKey(0)`."""

StepKey: TypeAlias = Arrays
"""A key, or an element of a step's `keys_of_steps`."""

Scalar: TypeAlias = Shaped[Array, ""]
"""An array of shape `[]`."""

ScalarLike: TypeAlias = Shaped[ArrayLike, ""]
"""An array of shape `[]`, or a number."""

Theta: TypeAlias = Arrays
"""Outer parameters, which meta-training learns. Leaves are floating-point arrays."""

Params: TypeAlias = Arrays
"""Inner parameters, which a learned optimizer trains."""

ModelState: TypeAlias = Arrays
"""State that a task carries between steps without gradients (such as running averages), or None."""

Batch: TypeAlias = Arrays
"""One batch of data; `()` for tasks that use none."""

TaskParams: TypeAlias = Arrays
"""A sample of a task family, as a pytree of arrays: the dynamic part of a task's configuration."""

OuterState: TypeAlias = Arrays
"""The outer training state that a step may depend on: any object with `.outer_iteration`, or None."""

UnrollState: TypeAlias = Arrays
"""The state of an unroll: all inputs of its next step."""

Aux: TypeAlias = Mapping[str, jax.Array]
"""Named scalars that a task reports besides its loss."""
