"""What `VectorizedLOptTruncatedStep` carries from step to step, and what a step of it is given."""

from typing import Any, NamedTuple, Self

import jax

from unspool.types import Batch, PRNGKey, PyTree, TaskParams


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
        """A copy with some fields changed."""
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
