"""Inner training as a minimal unrolled system: one task, one learned optimizer, one episode length.

`VectorizedLOptTruncatedStep` supports families of tasks and any truncation schedule. Read this file first,
and copy it to write a new system.
"""

import dataclasses
from typing import Any, ClassVar, NamedTuple, Self

import jax
import jax.numpy as jnp

from unspool import training
from unspool.config.arguments import check_hashable, check_instance, check_whole_number
from unspool.discarded import not_differentiated
from unspool.lazy_cond import lazy_cond
from unspool.learned_optimizers.base import LearnedOptimizer
from unspool.steps.inner_training import evaluated, initial_opt_state, updated
from unspool.steps.step_outputs import (
    EpisodesInExpectation,
    ResidentData,
    TruncatedUnrollOut,
    with_a_reset_step,
)
from unspool.steps.truncated_step import TruncatedStep
from unspool.steps.vectorized_truncated_step import VectorizedTruncatedStep
from unspool.tasks.base import Task
from unspool.tasks.datasets.base import sample_batch
from unspool.types import Batch, OuterState, PRNGKey, PyTree, Scalar, Theta


class SimpleUnrollState(NamedTuple):
    """The optimizer's state, which holds the inner parameters, and the number of updates in this episode,
    `[]` int32.
    """

    inner_opt_state: PyTree
    inner_step: jax.Array

    def replace(self, **changes: Any) -> Self:
        """Return a copy with some fields changed."""
        return self._replace(**changes)


@dataclasses.dataclass(frozen=True)
class SimpleLOptTruncatedStep(TruncatedStep):
    """Repeated training of `task` by a learned optimizer, for `unroll_length` steps from new parameters.

    Losses are those of the training batch before the update, normalized by the task. Episodes end by
    convention (b) of `TruncatedStep`: the step that follows the last update only resets, and reports
    `is_done`.

    Attributes:
        task: the task to train.
        lopt: the learned optimizer that theta parametrises.
        unroll_length: number of updates per episode.
    """

    task: Task
    lopt: LearnedOptimizer
    unroll_length: int = 5

    keeps_last_state: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_instance(self, "task", Task, "for a TaskFamily use VectorizedLOptTruncatedStep")
        check_instance(
            self, "lopt", LearnedOptimizer, "learned_optimizer_from_opt makes one of a plain optimizer"
        )
        check_whole_number(self, "unroll_length")
        check_hashable(self, "task", "lopt")

    def outer_init(self, key: PRNGKey) -> Theta:
        return self.lopt.init(key)

    def init_step_state(self, theta: Theta, outer_state: OuterState, key: PRNGKey) -> SimpleUnrollState:
        params_key, optimizer_key = jax.random.split(key)
        optimizer = self.lopt.opt_in_training(theta)
        opt_state = initial_opt_state(optimizer, self.task, params_key, optimizer_key, self.unroll_length)
        return SimpleUnrollState(opt_state, jnp.zeros((), jnp.int32))

    def unroll_step(
        self,
        theta: Theta,
        unroll_state: SimpleUnrollState,
        key: PRNGKey,
        data: Batch,
        outer_state: OuterState,
    ) -> tuple[SimpleUnrollState, TruncatedUnrollOut]:
        resets = unroll_state.inner_step >= self.unroll_length
        # A reset discards this step's training; backpropagation must discard it too.
        trained, loss = self._train(*not_differentiated(resets, (theta, unroll_state)), key, data)
        state = lazy_cond(resets, lambda: self.init_step_state(theta, outer_state, key), trained)
        return state, TruncatedUnrollOut(
            loss=jnp.where(resets, 0.0, self.task.normalizer(loss)),
            is_done=resets,
            task_param=(),
            iteration=state.inner_step,
            mask=~resets,
            episode_length=jnp.asarray(self.unroll_length, jnp.int32),
        )

    def get_batch(self, steps: int) -> Batch | None:
        """Return host batches, for streamed data and manual steps."""
        if self.task.datasets is None:
            return None
        return training.get_batches(self.task, (steps,), numpy=True)

    def resident_data(self) -> ResidentData | None:
        if self.task.datasets is None:
            return ResidentData(())
        splits = self.task.datasets.resident(["train"])
        return None if splits is None else ResidentData(splits["train"].arrays)

    def meta_loss_batch(
        self,
        theta: Theta,
        unroll_state: SimpleUnrollState,
        key: PRNGKey,
        data: Batch,
        outer_state: OuterState,
    ) -> Scalar:
        loss_key, batch_key = jax.random.split(key)
        batch = self._batch(data, batch_key)
        optimizer = self.lopt.opt_in_training(theta)
        loss = evaluated(optimizer, self.task, unroll_state.inner_opt_state, loss_key, batch)
        return self.task.normalizer(loss)

    def episodes(self, outer_state: OuterState) -> EpisodesInExpectation:
        del outer_state
        return with_a_reset_step(self.unroll_length)

    def label(self) -> str:
        return self.task.name

    def _train(
        self, theta: Theta, state: SimpleUnrollState, key: PRNGKey, data: Batch
    ) -> tuple[SimpleUnrollState, Scalar]:
        """Make one update of the inner parameters, and return the loss before it."""
        loss_key, update_key, batch_key = jax.random.split(key, 3)
        batch = self._batch(data, batch_key)
        optimizer = self.lopt.opt_in_training(theta)
        opt_state, loss = updated(optimizer, self.task, state.inner_opt_state, (loss_key, update_key), batch)
        return SimpleUnrollState(opt_state, state.inner_step + 1), loss

    def _batch(self, data: Batch, key: PRNGKey) -> Batch:
        if not isinstance(data, ResidentData):
            return () if data is None else data
        splits = None if self.task.datasets is None else self.task.datasets.resident(["train"])
        return () if splits is None else sample_batch(data.arrays, key, splits["train"].batch_size)


def SimpleVecLOptTruncatedStep(  # noqa: N802 (user code calls it as a class)
    task: Task, lopt: LearnedOptimizer, num_tasks: int, unroll_length: int = 5
) -> VectorizedTruncatedStep:
    """Return `num_tasks` parallel runs of `SimpleLOptTruncatedStep`, as estimators require."""
    return VectorizedTruncatedStep(SimpleLOptTruncatedStep(task, lopt, unroll_length), num_tasks)
