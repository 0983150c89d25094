"""Inner training as an unrolled system: a learned optimizer that trains the tasks of a family."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from unspool.config.arguments import check_choice, check_hashable, check_instance, check_whole_number
from unspool.device_mesh import over_tasks
from unspool.discarded import not_differentiated
from unspool.estimates.checks import check_arrays, check_scalar, check_unchanged
from unspool.lazy_cond import lazy_cond
from unspool.learned_optimizers.base import LearnedOptimizer
from unspool.outer_trainers.truncation_schedule import TruncationSchedule
from unspool.steps.inner_training import evaluated, initial_opt_state, updated
from unspool.steps.lopt_step_data import InnerBatches
from unspool.steps.lopt_step_state import (
    StepKeys,
    TaskInputs,
    TruncatedUnrollState,
    keys_of_tasks,
    outer_data_keys,
    step_keys,
)
from unspool.steps.simple_lopt_truncated_step import SimpleLOptTruncatedStep, SimpleVecLOptTruncatedStep
from unspool.steps.step_outputs import (
    EpisodesInExpectation,
    ResidentData,
    TruncatedUnrollOut,
    with_a_reset_step,
)
from unspool.steps.vectorized_step import StepContext, VectorizedStep
from unspool.tasks.base import Task, TaskFamily
from unspool.tasks.datasets.base import SPLITS
from unspool.types import Batch, OuterState, PRNGKey, PyTree, Scalar, ScalarLike, StepKey, TaskParams, Theta

__all__ = [
    "SimpleLOptTruncatedStep",
    "SimpleVecLOptTruncatedStep",
    "StepKeys",
    "TruncatedUnrollState",
    "VectorizedLOptTruncatedStep",
]

_Length = ScalarLike | None


@dataclasses.dataclass(frozen=True)
class VectorizedLOptTruncatedStep(VectorizedStep):
    """`num_tasks` inner training runs by a learned optimizer, each reset by its truncation schedule.

    An episode of length L is L training steps, the last of which reports `is_done`, and one masked step that
    resets.

    Attributes:
        task_family: the distribution of tasks.
        learned_opt: the learned optimizer that theta parametrises.
        trunc_sched: the length of episodes.
        num_tasks: number of parallel inner training runs.
        meta_loss_split: the loss to report. None: the training loss at the parameters before the update (at
            no cost). "same_data": the loss after the update on the same batch. A split's name: after the
            update, on a fresh batch of that split.
        random_initial_iteration_offset: the inner step of each first episode starts at a random number in
            `[0, offset)`, so that resets do not coincide.
        outer_data_split: the split of `meta_loss_batch`.
        meta_loss_with_aux_key: name of the aux value to report instead of the loss.
        task_name: name in metrics; the family's name if None.
    """

    task_family: TaskFamily
    learned_opt: LearnedOptimizer
    trunc_sched: TruncationSchedule
    num_tasks: int
    meta_loss_split: str | None = None
    random_initial_iteration_offset: int = 0
    outer_data_split: str = "train"
    meta_loss_with_aux_key: str | None = None
    task_name: str | None = None

    def __post_init__(self) -> None:
        check_instance(self, "task_family", TaskFamily, "single_task_to_family makes one of a Task")
        check_instance(
            self, "learned_opt", LearnedOptimizer, "learned_optimizer_from_opt makes one of an optimizer"
        )
        check_instance(self, "trunc_sched", TruncationSchedule, "for example ConstantTruncationSchedule(100)")
        check_hashable(self, "task_family", "learned_opt", "trunc_sched")
        check_whole_number(self, "num_tasks")
        check_whole_number(self, "random_initial_iteration_offset", at_least=0)
        check_choice(self, "meta_loss_split", (None, "same_data", *SPLITS))
        check_choice(self, "outer_data_split", SPLITS)

    @property
    def keeps_last_state(self) -> bool:
        return True

    def outer_init(self, key: PRNGKey) -> Theta:
        return self.learned_opt.init(key)

    def init_tasks(self, theta: Theta, key: PRNGKey, context: StepContext) -> TruncatedUnrollState:
        tasks_key, offset_key = jax.random.split(key)
        init = over_tasks(self._init_task, (context.theta_axis, None, 0, None))
        keys = jax.random.split(tasks_key, self.num_tasks)
        state: TruncatedUnrollState = init(theta, context.outer_state, keys, context.num_steps)
        if not self.random_initial_iteration_offset:
            return state
        # Only the counter is offset, so the first episodes end early, at different steps.
        offsets = jax.random.randint(
            offset_key, (self.num_tasks,), 0, self.random_initial_iteration_offset, jnp.int32
        )
        return state._replace(inner_step=offsets)

    def step_tasks(
        self, theta: Theta, state: TruncatedUnrollState, key: StepKey, data: Batch, context: StepContext
    ) -> tuple[TruncatedUnrollState, TruncatedUnrollOut]:
        keys = key if isinstance(key, StepKeys) else step_keys(key, self.num_tasks)
        batch, meta_batch = self._batches.of_step(data, keys)
        step = over_tasks(self._step_task, (context.theta_axis, 0, 0, None, None, None))
        inputs = TaskInputs(jnp.arange(self.num_tasks), keys.step, keys.meta, batch, meta_batch)
        state, out = step(theta, state, inputs, keys.root, context.outer_state, context.num_steps)
        return state, out

    def meta_losses(
        self, theta: Theta, state: TruncatedUnrollState, key: PRNGKey, data: Batch, context: StepContext
    ) -> Float[Array, " tasks"]:
        if isinstance(data, ResidentData):
            data = self._batches.drawn(self.outer_data_split, data, outer_data_keys(key, self.num_tasks))
        loss = over_tasks(self._meta_loss, (context.theta_axis, 0, 0, 0))
        losses: jax.Array = loss(theta, state, jax.random.split(key, self.num_tasks), data)
        return losses

    def keys_of_steps(self, keys: PRNGKey) -> StepKeys:
        derived: StepKeys = jax.vmap(lambda key: step_keys(key, self.num_tasks))(keys)
        return derived

    def get_batch(self, steps: int | None = None) -> Batch | None:
        """Return host batches; `(train, meta)` if `meta_loss_split` is a split."""
        return self._batches.from_host(steps)

    def get_outer_batch(self, steps: int | None = None) -> Batch:
        return self._batches.of_split(self.outer_data_split, steps)

    def outer_batch_of(self, data: Batch) -> Batch:
        return self._batches.outer_of_step(data)

    def resident_data(self) -> ResidentData | None:
        return self._batches.resident()

    def episodes(self, outer_state: OuterState) -> EpisodesInExpectation:
        return with_a_reset_step(self.trunc_sched.mean_length(outer_state))

    def label(self) -> str:
        return self.task_name or self.task_family.name

    @functools.cached_property  # every estimate asks it for its data
    def _batches(self) -> InnerBatches:
        meta_loss_split = self.meta_loss_split if self.meta_loss_split in SPLITS else None
        return InnerBatches(
            self.task_family, self.num_tasks, meta_loss_split, self.outer_data_split, self.label()
        )

    # The methods below handle one task; `over_tasks` above adds the axis of tasks.

    def _init_task(
        self, theta: Theta, outer_state: OuterState, key: PRNGKey, num_steps: _Length
    ) -> TruncatedUnrollState:
        task_key, params_key, schedule_key, optimizer_key = jax.random.split(key, 4)
        truncation_state = self.trunc_sched.init(schedule_key, outer_state)
        length = self._episode_length(truncation_state, num_steps)
        opt_state, task_param = self._new_task(theta, task_key, params_key, optimizer_key, length)
        return TruncatedUnrollState(
            opt_state, jnp.zeros((), jnp.int32), truncation_state, task_param, jnp.zeros((), bool)
        )

    def _new_task(
        self, theta: Theta, task_key: PRNGKey, params_key: PRNGKey, optimizer_key: PRNGKey, length: Scalar
    ) -> tuple[PyTree, TaskParams]:
        """Return the optimizer's state with new parameters of a new task, and the task's own parameters."""
        task_param = self.task_family.sample(task_key)
        what = f"{type(self.task_family).__name__}.sample: what it returned"
        check_arrays(what, task_param, "keep other values in the family's own fields")
        task, optimizer = self.task_family.task_fn(task_param), self.learned_opt.opt_in_training(theta)
        return initial_opt_state(optimizer, task, params_key, optimizer_key, length), task_param

    def _episode_length(self, truncation_state: PyTree, num_steps: _Length) -> Scalar:
        length = getattr(truncation_state, "length", None) if num_steps is None else num_steps
        if length is None:
            raise ValueError(
                f"VectorizedLOptTruncatedStep(trunc_sched={self.trunc_sched}): episodes without a length can "
                "only be unrolled by an estimator that sets one (FullES); for a truncated estimator choose a "
                "schedule with lengths"
            )
        return jnp.asarray(length, jnp.int32)

    def _step_task(
        self,
        theta: Theta,
        state: TruncatedUnrollState,
        inputs: TaskInputs,
        root_key: PRNGKey,
        outer_state: OuterState,
        num_steps: _Length,
    ) -> tuple[TruncatedUnrollState, TruncatedUnrollOut]:
        def rare_key(use: int) -> PRNGKey:
            # Derived for all tasks at once, and only if some task needs one: at every step, these keys would
            # take a sixth of a small task's time.
            return keys_of_tasks(root_key, self.num_tasks)[inputs.task_index, use]

        resets = state.is_done
        task = self.task_family.task_fn(state.task_param)
        # A reset discards this step's training; backpropagation must discard it too.
        trained, loss = self._trained_and_loss(*not_differentiated(resets, (theta, state)), task, inputs)
        state = lazy_cond(resets, lambda: self._reset(theta, rare_key(0), state, num_steps), trained)
        truncation_state, is_done = self.trunc_sched.next_state_lazily(
            state.truncation_state, state.inner_step, lambda: rare_key(1), outer_state
        )
        normalized = task.normalizer(loss)
        what = f"{task.name}.normalizer: the loss"
        check_scalar(what, normalized, "floating-point number", "map a number to a number")
        schedule = f"{type(self.trunc_sched).__name__}.next_state"
        check_unchanged(f"{schedule}: the state", state.truncation_state, truncation_state)
        check_scalar(f"{schedule}: is_done", is_done, "bool", "compare the step with a length")
        out = TruncatedUnrollOut(
            loss=jnp.where(resets, 0.0, normalized),
            is_done=is_done,
            task_param=state.task_param,
            iteration=state.inner_step,
            mask=~resets,
            episode_length=self._episode_length(state.truncation_state, num_steps),
        )
        return state._replace(truncation_state=truncation_state, is_done=is_done), out

    def _trained_and_loss(
        self, theta: Theta, state: TruncatedUnrollState, task: Task, inputs: TaskInputs
    ) -> tuple[TruncatedUnrollState, jax.Array]:
        """Make one update of the inner parameters, and return the loss to report."""
        optimizer = self.learned_opt.opt_in_training(theta)
        aux_key = self.meta_loss_with_aux_key
        loss_key, update_key = jax.random.split(inputs.step_key)
        opt_state, loss = updated(
            optimizer, task, state.inner_opt_state, (loss_key, update_key), inputs.batch, aux_key
        )
        if self.meta_loss_split is not None:
            after_batch = inputs.batch if self.meta_loss_split == "same_data" else inputs.meta_batch
            loss = evaluated(optimizer, task, opt_state, inputs.meta_key, after_batch, aux_key)
        return state._replace(inner_opt_state=opt_state, inner_step=state.inner_step + 1), loss

    def _reset(
        self, theta: Theta, key: PRNGKey, state: TruncatedUnrollState, num_steps: _Length
    ) -> TruncatedUnrollState:
        """Return a new task with new parameters; the truncation state already is that of the new episode."""
        task_key, params_key, optimizer_key = jax.random.split(key, 3)
        length = self._episode_length(state.truncation_state, num_steps)
        opt_state, task_param = self._new_task(theta, task_key, params_key, optimizer_key, length)
        return state._replace(
            inner_opt_state=opt_state, inner_step=jnp.zeros((), jnp.int32), task_param=task_param
        )

    def _meta_loss(self, theta: Theta, state: TruncatedUnrollState, key: PRNGKey, batch: Batch) -> Scalar:
        task = self.task_family.task_fn(state.task_param)
        optimizer = self.learned_opt.opt_in_training(theta)
        aux_key = self.meta_loss_with_aux_key
        return task.normalizer(evaluated(optimizer, task, state.inner_opt_state, key, batch, aux_key))
