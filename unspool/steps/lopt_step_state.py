"""What `VectorizedLOptTruncatedStep` carries from step to step, and what a step of it is given."""

import zlib
from typing import Any, NamedTuple, Self

import jax

from unspool.types import Batch, PRNGKey, PyTree, TaskParams

# Streams of their own beside those that the golden values fix by splitting the step's key.
_TRAIN_DATA = zlib.crc32(b"train data")
_OUTER_DATA = zlib.crc32(b"outer data")


class TruncatedUnrollState(NamedTuple):
    """Where the inner training runs stand; every leaf leads with `[num_tasks]`.

    Attributes:
        inner_opt_state: state of the optimizer that theta parametrises, the inner parameters in it.
        inner_step: int32, updates since the episode began (or the random offset it was given).
        truncation_state: state of the truncation schedule.
        task_param: what the task family sampled.
        is_done: bool; the last step ended the episode and the next one will reset.
    """

    inner_opt_state: PyTree
    inner_step: jax.Array
    truncation_state: PyTree
    task_param: TaskParams
    is_done: jax.Array

    def replace(self, **changes: Any) -> Self:
        """Return a copy with some fields changed."""
        return self._replace(**changes)


class StepKeys(NamedTuple):
    """The keys of one step, one of each for every task `[num_tasks]`. Those that nothing uses cost nothing.

    Attributes:
        root: `[]`, what the others are made of; resets and the truncation schedule make theirs when they need
            any.
        step: of the training step.
        meta: of the loss after the update.
        train_data: of the training batch.
        outer_data: of the batch of the loss after the update.
    """

    root: PRNGKey
    step: PRNGKey
    meta: PRNGKey
    train_data: PRNGKey
    outer_data: PRNGKey


def step_keys(key: PRNGKey, num_tasks: int) -> StepKeys:
    """The keys of one step of `num_tasks` tasks. Consumes `key`."""
    _, meta_key = jax.random.split(key)
    return StepKeys(
        root=key,
        step=keys_of_tasks(key, num_tasks)[:, 0],
        meta=jax.random.split(meta_key, num_tasks),
        train_data=_stream(key, _TRAIN_DATA, num_tasks),
        outer_data=outer_data_keys(key, num_tasks),
    )


def keys_of_tasks(key: PRNGKey, num_tasks: int) -> PRNGKey:
    """`[num_tasks, 2]`: of each task's training step, or of its reset, and of its truncation schedule."""
    tasks_key, _ = jax.random.split(key)
    return jax.vmap(jax.random.split)(jax.random.split(tasks_key, num_tasks))


def outer_data_keys(key: PRNGKey, num_tasks: int) -> PRNGKey:
    """`[num_tasks]`: of the batches of losses that are not trained on."""
    return _stream(key, _OUTER_DATA, num_tasks)


def _stream(key: PRNGKey, name: int, num_tasks: int) -> PRNGKey:
    """One key for each task, independent of those that `key` is split into."""
    return jax.random.split(jax.random.fold_in(key, name), num_tasks)


class TaskInputs(NamedTuple):
    """What one step of one task gets that no other task does.

    Attributes:
        task_index: `[]`, which of the tasks it is.
        step_key: of the training step.
        meta_key: of the loss after the update.
        batch: to train on.
        meta_batch: of the loss after the update.
    """

    task_index: jax.Array
    step_key: PRNGKey
    meta_key: PRNGKey
    batch: Batch
    meta_batch: Batch
