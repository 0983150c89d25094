"""The names that signatures of the library use for what passes through them."""

from collections.abc import Mapping
from typing import Any, TypeAlias

import jax

PyTree: TypeAlias = Any
"""Any nesting of containers with arrays at the leaves; Python cannot say this more precisely."""

PRNGKey: TypeAlias = jax.Array
"""A random key of either style: `jax.random.key(0)` or `jax.random.PRNGKey(0)`."""

Scalar: TypeAlias = jax.Array
"""An array of shape `[]`."""

Theta: TypeAlias = PyTree
"""Outer parameters: what meta-training learns."""

Params: TypeAlias = PyTree
"""Inner parameters: what a learned optimizer trains."""

ModelState: TypeAlias = PyTree
"""What a task carries from step to step without gradients (running averages, say), or None."""

Batch: TypeAlias = PyTree
"""One batch of data; `()` for tasks that use none."""

TaskParams: TypeAlias = PyTree
"""What a task family samples, as a pytree of arrays: the dynamic part of a task's configuration."""

Aux: TypeAlias = Mapping[str, jax.Array]
"""Named scalars that a task reports beside its loss."""
