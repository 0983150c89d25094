"""Stacked batches for code that passes data to its steps explicitly.

Jitted code can sample inside a scan instead: see `unspool.tasks.datasets.base.sample_batch`.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np

from unspool.tasks.base import Task, TaskFamily
from unspool.tasks.datasets.base import stacked
from unspool.types import Batch


def get_batches(
    task_family: TaskFamily | Task, batch_shape: tuple[int, ...], split: str = "train", numpy: bool = False
) -> Batch:
    """Take the next batches of `split`, stacked to leaves `[*batch_shape, ...]`.

    Args:
        task_family: A task or family; if it has no data, the result is `()`.
        batch_shape: Leading axes of the result, for example `(steps, tasks)`; one batch is taken for each
            position.
        split: Name of a split.
        numpy: Whether to return numpy arrays instead of arrays on the device.

    Raises:
        EndOfDataError: an iterator of batches has ended.
        ValueError: an axis is less than 1, or batches differ in their shapes.
    """
    if task_family.datasets is None:
        return ()
    number = math.prod(batch_shape)
    if number < 1:
        raise ValueError(f"get_batches(batch_shape={batch_shape}): every axis must be at least 1")
    batches = task_family.datasets.next_batches(split, number, task_family.name)
    in_a_row = stacked(batches, f"the split {split!r} of {task_family.name}")

    def shaped(leaf: np.ndarray) -> np.ndarray | jax.Array:
        leaf = leaf.reshape(*batch_shape, *leaf.shape[1:])
        return leaf if numpy else jnp.asarray(leaf)

    return jax.tree.map(shaped, in_a_row)


def vec_get_batch(
    task_family: TaskFamily | Task, n_tasks: int, split: str = "train", numpy: bool = False
) -> Batch:
    """Take one batch of `split` for each of `n_tasks` tasks, stacked to leaves `[n_tasks, ...]`."""
    return get_batches(task_family, (n_tasks,), split=split, numpy=numpy)
