"""Batches of batches for code that feeds data to its steps by hand.

Jitted code that samples inside a scan has no need of this: see `unspool.tasks.datasets.base.sample_batch`.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np

from unspool.tasks.base import Task, TaskFamily
from unspool.types import Batch


def get_batches(
    task_family: TaskFamily | Task, batch_shape: tuple[int, ...], split: str = "train", numpy: bool = False
) -> Batch:
    """Take the next batches of `split`, stacked to leaves `[*batch_shape, ...]`.

    Args:
        task_family: A task or family; where it has no data the result is `()`.
        batch_shape: Leading axes of the result, `(steps, tasks)` say; one batch is taken for each position.
        split: Name of a split.
        numpy: Return numpy arrays instead of arrays on the device.
    """
    if task_family.datasets is None:
        return ()
    batches_of_split = task_family.datasets.split(split)
    batches = [next(batches_of_split) for _ in range(math.prod(batch_shape))]
    if not batches:
        raise ValueError(f"get_batches(batch_shape={batch_shape}): every axis must be at least 1")

    def stack(*leaves: np.ndarray) -> np.ndarray | jax.Array:
        stacked = np.stack(leaves).reshape(*batch_shape, *np.shape(leaves[0]))
        return stacked if numpy else jnp.asarray(stacked)

    return jax.tree.map(stack, *batches)


def vec_get_batch(
    task_family: TaskFamily | Task, n_tasks: int, split: str = "train", numpy: bool = False
) -> Batch:
    """Take one batch of `split` for each of `n_tasks` tasks, stacked to leaves `[n_tasks, ...]`."""
    return get_batches(task_family, (n_tasks,), split=split, numpy=numpy)
