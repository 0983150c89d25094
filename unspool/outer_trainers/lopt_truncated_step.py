"""The unrolled system that is an inner training run: a learned optimizer training the tasks of a family."""

import dataclasses
import zlib

import jax
import jax.numpy as jnp

from unspool import training
from unspool.arguments import check_choice, check_hashable, check_instance, check_whole_number
from unspool.device_mesh import over_tasks
from unspool.discarded import not_differentiated
from unspool.learned_optimizers.base import LearnedOptimizer
from unspool.optimizers.base import Optimizer
from unspool.outer_trainers.checks import check_arrays, check_scalar, check_unchanged
from unspool.outer_trainers.lopt_step_state import StepKeys, TaskInputs, TruncatedUnrollState
from unspool.outer_trainers.simple_lopt_truncated_step import (
    SimpleLOptTruncatedStep,
    SimpleVecLOptTruncatedStep,
)
from unspool.outer_trainers.truncated_step import (
    EpisodesInExpectation,
    OuterState,
    ResidentData,
    TruncatedUnrollOut,
    VectorizedStep,
    axis_of,
    with_a_reset_step,
)
from unspool.outer_trainers.truncation_schedule import TruncationSchedule
from unspool.params import as_params
from unspool.rarely import rarely
from unspool.tasks.base import Task, TaskFamily
from unspool.tasks.datasets.base import SPLITS, sample_batch
from unspool.types import Batch, ModelState, Params, PRNGKey, PyTree, TaskParams, Theta

__all__ = [
    "SimpleLOptTruncatedStep",
    "SimpleVecLOptTruncatedStep",
    "StepKeys",
    "TruncatedUnrollState",
    "VectorizedLOptTruncatedStep",
]

# Streams of their own beside those that the golden values fix by splitting the step's key.
_TRAIN_DATA = zlib.crc32(b"train data")
_OUTER_DATA = zlib.crc32(b"outer data")

_TAKE_THE_MEAN = "take its mean over the batch, say"


@dataclasses.dataclass(frozen=True)
class VectorizedLOptTruncatedStep(VectorizedStep):
    """`num_tasks` inner training runs by a learned optimizer, each reset when its truncation schedule says
    so.

    An episode of length L is L training steps, the last of which reports `is_done`, and one masked step that
    resets.

    Attributes:
        task_family: where the tasks come from.
        learned_opt: what theta parametrises.
        trunc_sched: how long an episode lasts.
        num_tasks: inner training runs side by side.
        meta_loss_split: which loss is reported. None: the training loss at the parameters before the update
            (free). "same_data": the loss after the update on the same batch. A split's name: after the
            update, on a fresh batch of that split.
        random_initial_iteration_offset: inner steps of the first episodes begin anywhere in `[0, offset)`, so
            that resets are spread.
        outer_data_split: the split of `meta_loss_batch`.
        meta_loss_with_aux_key: report this aux value of the task instead of its loss.
        task_name: what metrics call it; the family's name if None.
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
        check_instance(
            self, "trunc_sched", TruncationSchedule, "ConstantTruncationSchedule(total_length), say"
        )
        for field in ("task_family", "learned_opt", "trunc_sched"):
            check_hashable(self, field)
        check_whole_number(self, "num_tasks")
        check_whole_number(self, "random_initial_iteration_offset", at_least=0)
        check_choice(self, "meta_loss_split", (None, "same_data", *SPLITS))
        check_choice(self, "outer_data_split", SPLITS)

    def outer_init(self, key: PRNGKey) -> Theta:
        return self.learned_opt.init(key)

    def init_step_state(
        self,
        theta: Theta,
        outer_state: OuterState,
        key: PRNGKey,
        theta_is_vector: bool = False,
        num_steps_override: jax.Array | int | None = None,
    ) -> TruncatedUnrollState:
        tasks_key, offset_key = jax.random.split(key)
        init = over_tasks(self._init_task, (axis_of(theta_is_vector), None, 0, None))
        state: TruncatedUnrollState = init(
            theta, outer_state, jax.random.split(tasks_key, self.num_tasks), num_steps_override
        )
        if self.random_initial_iteration_offset:
            # Only the counter: the first episodes end early and thereby fall out of step with each other.
            offsets = jax.random.randint(
                offset_key, (self.num_tasks,), 0, self.random_initial_iteration_offset, jnp.int32
            )
            state = state._replace(inner_step=offsets)
        return state

    def unroll_step(
        self,
        theta: Theta,
        unroll_state: TruncatedUnrollState,
        key: PRNGKey | StepKeys,
        data: Batch,
        outer_state: OuterState,
        theta_is_vector: bool = False,
        override_num_steps: jax.Array | int | None = None,
    ) -> tuple[TruncatedUnrollState, TruncatedUnrollOut]:
        keys = key if isinstance(key, StepKeys) else self._keys(key)
        batch, meta_batch = self._batches(data, keys)
        step = over_tasks(self._step_task, (axis_of(theta_is_vector), 0, 0, None, None, None))
        inputs = TaskInputs(jnp.arange(self.num_tasks), keys.step, keys.meta, batch, meta_batch)
        state, out = step(theta, unroll_state, inputs, keys.root, outer_state, override_num_steps)
        return state, out

    def keys_of_steps(self, keys: PRNGKey) -> StepKeys:
        derived: StepKeys = jax.vmap(self._keys)(keys)
        return derived

    def meta_loss_batch(
        self,
        theta: Theta,
        unroll_state: TruncatedUnrollState,
        key: PRNGKey,
        data: Batch,
        outer_state: OuterState,
        theta_is_vector: bool = False,
    ) -> jax.Array:
        del outer_state
        if isinstance(data, ResidentData):
            data = self._draw(self.outer_data_split, data, self._stream(key, _OUTER_DATA))
        loss = over_tasks(self._meta_loss, (axis_of(theta_is_vector), 0, 0, 0))
        losses: jax.Array = loss(theta, unroll_state, jax.random.split(key, self.num_tasks), data)
        return losses

    def get_batch(self, steps: int | None = None) -> Batch | None:
        """Host batches, for iterators and for stepping by hand; `(train, meta)` if `meta_loss_split` names a
        split.
        """
        batch = self._host_batches("train", steps)
        if self.task_family.datasets is None or self.meta_loss_split not in SPLITS:
            return batch
        return batch, self._host_batches(self.meta_loss_split, steps)

    def get_outer_batch(self, steps: int | None = None) -> Batch:
        return self._host_batches(self.outer_data_split, steps)

    def outer_batch_of(self, data: Batch) -> Batch:
        if isinstance(data, ResidentData) or self.task_family.datasets is None:
            return data
        of_splits = {"train": data}
        if self.meta_loss_split in SPLITS:
            of_splits = {"train": data[0], self.meta_loss_split: data[1]}
        if self.outer_data_split not in of_splits:
            raise ValueError(
                f"VectorizedLOptTruncatedStep(outer_data_split={self.outer_data_split!r}): the data of "
                f"{self.label()} is streamed from iterators, and steps are given batches of "
                f"{' and '.join(of_splits)} only; name one of these, or make the data set of Splits"
            )
        return of_splits[self.outer_data_split]

    def resident_data(self) -> ResidentData | None:
        datasets = self.task_family.datasets
        if datasets is None:
            return ResidentData({})
        wanted = {"train", self.outer_data_split, self.meta_loss_split}
        splits = datasets.resident([split for split in SPLITS if split in wanted])
        return None if splits is None else ResidentData({name: one.arrays for name, one in splits.items()})

    @property
    def keeps_last_state(self) -> bool:
        return True

    def episodes(self, outer_state: OuterState) -> EpisodesInExpectation:
        return with_a_reset_step(self.trunc_sched.mean_length(outer_state))

    def label(self) -> str:
        return self.task_name or self.task_family.name

    def _keys(self, key: PRNGKey) -> StepKeys:
        _, meta_key = jax.random.split(key)
        return StepKeys(
            root=key,
            step=self._keys_of_tasks(key)[:, 0],
            meta=jax.random.split(meta_key, self.num_tasks),
            train_data=self._stream(key, _TRAIN_DATA),
            outer_data=self._stream(key, _OUTER_DATA),
        )

    def _keys_of_tasks(self, key: PRNGKey) -> PRNGKey:
        """`[num_tasks, 2]`: of each task's training step, or of its reset, and of its truncation schedule."""
        tasks_key, _ = jax.random.split(key)
        return jax.vmap(jax.random.split)(jax.random.split(tasks_key, self.num_tasks))

    def _stream(self, key: PRNGKey, name: int) -> PRNGKey:
        """One key for each task, independent of those that `key` is split into."""
        return jax.random.split(jax.random.fold_in(key, name), self.num_tasks)

    def _batches(self, data: Batch, keys: StepKeys) -> tuple[Batch, Batch]:
        """The training batches and those of the meta-loss, leaves `[num_tasks, ...]`."""
        is_pair = self.meta_loss_split in SPLITS
        if not isinstance(data, ResidentData):
            return data if is_pair else (data, ())
        train = self._draw("train", data, keys.train_data)
        if not is_pair:
            return train, ()
        return train, self._draw(str(self.meta_loss_split), data, keys.outer_data)

    def _draw(self, split: str, data: ResidentData, keys: PRNGKey) -> Batch:
        if self.task_family.datasets is None:
            return ()
        resident = self.task_family.datasets.resident([split])
        if resident is None:
            raise ValueError(f"{self.label()}: the split {split!r} is an iterator, its batches must be given")
        batch_size = resident[split].batch_size
        return jax.vmap(lambda one: sample_batch(data.arrays[split], one, batch_size))(keys)

    def _host_batches(self, split: str, steps: int | None) -> Batch:
        shape = (self.num_tasks,) if steps is None else (steps, self.num_tasks)
        return training.get_batches(self.task_family, shape, split)

    # Below, everything is about one task; `vmap` above adds the axis.

    def _optimizer(self, theta: Theta) -> Optimizer:
        return self.learned_opt.opt_in_training(theta)

    def _init_task(
        self, theta: Theta, outer_state: OuterState, key: PRNGKey, num_steps: jax.Array | int | None
    ) -> TruncatedUnrollState:
        task_key, params_key, schedule_key, optimizer_key = jax.random.split(key, 4)
        truncation_state = self.trunc_sched.init(schedule_key, outer_state)
        task_param = self.task_family.sample(task_key)
        remedy = "keep what is no array in the family's own fields"
        check_arrays(f"{type(self.task_family).__name__}.sample: what it returned", task_param, remedy)
        opt_state = self._init_optimizer(
            theta, task_param, params_key, optimizer_key, truncation_state, num_steps
        )
        return TruncatedUnrollState(
            opt_state, jnp.zeros((), jnp.int32), truncation_state, task_param, jnp.zeros((), bool)
        )

    def _init_optimizer(
        self,
        theta: Theta,
        task_param: TaskParams,
        params_key: PRNGKey,
        optimizer_key: PRNGKey,
        truncation_state: PyTree,
        num_steps: jax.Array | int | None,
    ) -> PyTree:
        task = self.task_family.task_fn(task_param)
        params, model_state = task.init_with_state(params_key)
        params = as_params(params, f"{task.name}: params")
        length = self._episode_length(truncation_state, num_steps)
        return self._optimizer(theta).init(
            params, model_state=model_state, num_steps=length, key=optimizer_key
        )

    def _episode_length(self, truncation_state: PyTree, num_steps: jax.Array | int | None) -> jax.Array:
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
        num_steps: jax.Array | int | None,
    ) -> tuple[TruncatedUnrollState, TruncatedUnrollOut]:
        def rare_key(use: int) -> PRNGKey:
            # Of all tasks, and only where some task needs it: made at every step, these keys are a sixth of a
            # small task's time.
            return self._keys_of_tasks(root_key)[inputs.task_index, use]

        resets = state.is_done
        task = self.task_family.task_fn(state.task_param)
        # A reset throws this step's training away; so must backpropagation.
        trained, loss = self._trained_and_loss(*not_differentiated(resets, (theta, state)), task, inputs)
        state = rarely(resets, lambda: self._reset(theta, rare_key(0), state, num_steps), trained)
        truncation_state, is_done = self.trunc_sched.next_state_lazily(
            state.truncation_state, state.inner_step, lambda: rare_key(1), outer_state
        )
        schedule = f"{type(self.trunc_sched).__name__}.next_state"
        check_unchanged(f"{schedule}: the state", state.truncation_state, truncation_state)
        check_scalar(f"{schedule}: is_done", is_done, "bool", "compare the step with a length")
        loss = task.normalizer(loss)
        check_scalar(
            f"{task.name}.normalizer: the loss", loss, "floating-point number", "map a number to a number"
        )
        out = TruncatedUnrollOut(
            loss=jnp.where(resets, 0.0, loss),
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
        """One update of the inner parameters, and the loss that is reported of it."""
        trained, loss = self._train(theta, task, state, inputs.step_key, inputs.batch)
        if self.meta_loss_split is None:
            return trained, loss
        after_batch = inputs.batch if self.meta_loss_split == "same_data" else inputs.meta_batch
        params, model_state = self._optimizer(theta).get_params_state(trained.inner_opt_state)
        return trained, self._loss(task, params, model_state, inputs.meta_key, after_batch)[0]

    def _train(
        self, theta: Theta, task: Task, state: TruncatedUnrollState, key: PRNGKey, batch: Batch
    ) -> tuple[TruncatedUnrollState, jax.Array]:
        """One update of the inner parameters, and the loss before it."""
        loss_key, update_key = jax.random.split(key)
        optimizer = self._optimizer(theta)
        params, model_state = optimizer.get_params_state(state.inner_opt_state)

        def objective(params: Params) -> tuple[jax.Array, tuple[ModelState, jax.Array]]:
            reported, model_state_after, loss = self._reported_loss(
                task, params, model_state, loss_key, batch
            )
            return loss, (model_state_after, reported)

        (loss, (model_state_after, reported)), grad = jax.value_and_grad(objective, has_aux=True)(params)
        check_unchanged(f"{task.name}: the model state", model_state, model_state_after)
        opt_state = optimizer.update(
            state.inner_opt_state, grad, loss=loss, model_state=model_state_after, key=update_key
        )
        check_unchanged(f"{optimizer.name}.update: the state", state.inner_opt_state, opt_state)
        return state._replace(inner_opt_state=opt_state, inner_step=state.inner_step + 1), reported

    def _loss(
        self, task: Task, params: Params, model_state: ModelState, key: PRNGKey, batch: Batch
    ) -> tuple[jax.Array, ModelState]:
        reported, model_state, _ = self._reported_loss(task, params, model_state, key, batch)
        return reported, model_state

    def _reported_loss(
        self, task: Task, params: Params, model_state: ModelState, key: PRNGKey, batch: Batch
    ) -> tuple[jax.Array, ModelState, jax.Array]:
        """`(what is reported, next model state, what is trained on)`."""
        if self.meta_loss_with_aux_key is None:
            loss, model_state = task.loss_with_state(params, model_state, key, batch)
            check_scalar(f"{task.name}: the loss", loss, "floating-point number", _TAKE_THE_MEAN)
            return loss, model_state, loss
        loss, model_state, aux = task.loss_with_state_and_aux(params, model_state, key, batch)
        if self.meta_loss_with_aux_key not in aux:
            raise ValueError(
                f"VectorizedLOptTruncatedStep(meta_loss_with_aux_key={self.meta_loss_with_aux_key!r}): "
                f"{task.name} reports "
                f"{sorted(aux) or 'no aux values'}"
            )
        reported = aux[self.meta_loss_with_aux_key]
        for what, value in (("the loss", loss), (f"aux {self.meta_loss_with_aux_key!r}", reported)):
            check_scalar(f"{task.name}: {what}", value, "floating-point number", _TAKE_THE_MEAN)
        return reported, model_state, loss

    def _reset(
        self, theta: Theta, key: PRNGKey, state: TruncatedUnrollState, num_steps: jax.Array | int | None
    ) -> TruncatedUnrollState:
        """A new task and a new start; the truncation state is that of the new episode already."""
        task_key, params_key, optimizer_key = jax.random.split(key, 3)
        task_param = self.task_family.sample(task_key)
        opt_state = self._init_optimizer(
            theta, task_param, params_key, optimizer_key, state.truncation_state, num_steps
        )
        return state._replace(
            inner_opt_state=opt_state, inner_step=jnp.zeros((), jnp.int32), task_param=task_param
        )

    def _meta_loss(self, theta: Theta, state: TruncatedUnrollState, key: PRNGKey, batch: Batch) -> jax.Array:
        task = self.task_family.task_fn(state.task_param)
        params, model_state = self._optimizer(theta).get_params_state(state.inner_opt_state)
        return task.normalizer(self._loss(task, params, model_state, key, batch)[0])
