"""The state of `VectorizedLOptTruncatedStep` and the inputs of its steps."""

import zlib
from typing import Any, NamedTuple, Self

import jax

from unspool.types import Batch, PRNGKey, PyTree, TaskParams

# Random streams separate from the splits of the step's key, which golden values depend on.
_TRAIN_DATA = zlib.crc32(b"train data")
_OUTER_DATA = zlib.crc32(b"outer data")


class TruncatedUnrollState(NamedTuple):
    """The state of the inner training runs; every leaf leads with `[num_tasks]`.

    Attributes:
        inner_opt_state: state of the optimizer that theta parametrises, with the inner parameters.
        inner_step: int32, updates since the start of the episode, plus the random initial offset.
        truncation_state: state of the truncation schedule.
        task_param: the sample of the task family.
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
    """The keys of one step, one of each per task `[num_tasks]`. Unused keys cost nothing once compiled.

    Attributes:
        root: `[]`, the key that the others derive from; resets and the truncation schedule derive theirs on
            demand.
        step: for the training step.
        meta: for the loss after the update.
        train_data: for the training batch.
        outer_data: for the batch of the loss after the update.
    """

    root: PRNGKey
    step: PRNGKey
    meta: PRNGKey
    train_data: PRNGKey
    outer_data: PRNGKey


def step_keys(key: PRNGKey, num_tasks: int) -> StepKeys:
    """Return the keys of one step of `num_tasks` tasks. Consumes `key`."""
    _, meta_key = jax.random.split(key)
    return StepKeys(
        root=key,
        step=keys_of_tasks(key, num_tasks)[:, 0],
        meta=jax.random.split(meta_key, num_tasks),
        train_data=_stream(key, _TRAIN_DATA, num_tasks),
        outer_data=outer_data_keys(key, num_tasks),
    )


def keys_of_tasks(key: PRNGKey, num_tasks: int) -> PRNGKey:
    """Return keys `[num_tasks, 2]` for each task's training step or reset, and truncation schedule."""
    tasks_key, _ = jax.random.split(key)
    return jax.vmap(jax.random.split)(jax.random.split(tasks_key, num_tasks))


def outer_data_keys(key: PRNGKey, num_tasks: int) -> PRNGKey:
    """Return keys `[num_tasks]` for the batches of losses that are not trained on."""
    return _stream(key, _OUTER_DATA, num_tasks)


def _stream(key: PRNGKey, name: int, num_tasks: int) -> PRNGKey:
    """Return one key per task, independent of the splits of `key`."""
    return jax.random.split(jax.random.fold_in(key, name), num_tasks)


class TaskInputs(NamedTuple):
    """The inputs of one task's step that differ between tasks: its index `[]`, and keys and batches for
    the training step and for the loss after the update.
    """

    task_index: jax.Array
    step_key: PRNGKey
    meta_key: PRNGKey
    batch: Batch
    meta_batch: Batch
