"""Train inner problems from initialisation to the last step and record the learning curves.

In every curve `xs` is the number of updates before the measurement: 0 is the initialisation, and the last
evaluation uses the final parameters.
"""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

from unspool.learned_optimizers.base import LearnedOptimizer, learned_optimizer_from_opt
from unspool.optimizers.optimizer import Optimizer, OptState
from unspool.steps.inner_training import initial_opt_state, updated
from unspool.tasks.base import Task, TaskFamily, single_task_to_family
from unspool.tasks.datasets.base import Datasets, sample_batch, stacked
from unspool.types import Batch, PRNGKey, PyTree, Scalar, ScalarLike, TaskParams, Theta

Curves = dict[str, npt.NDArray[Any]]
Metrics = dict[str, jax.Array]

_SINGLE_TASK_SPLITS = ("train", "outer_valid", "test")


def single_task_training_curves(  # noqa: PLR0913 (the argument names of the API that this keeps)
    task: Task,
    opt: Optimizer,
    num_steps: int,
    key: PRNGKey,
    eval_every: int = 10,
    eval_batches: int = 5,
    last_eval_batches: int = 20,
    eval_task: Task | None = None,
    device: jax.Device | None = None,  # pyright: ignore[reportInvalidTypeForm] (JAX declares a variable)
) -> Curves:
    """Train one task with one optimizer.

    Args:
        task: The task to train.
        opt: The optimizer.
        num_steps: Number of updates.
        key: Consumed; the source of all randomness.
        eval_every: Updates between two evaluations.
        eval_batches: Batches of each split that an evaluation averages over.
        last_eval_batches: The same, for the evaluation after the last update.
        eval_task: The task to evaluate; `task` if None.
        device: The device to compute on; JAX's default device if None.

    Returns:
        `train/xs`, `train/loss` and `train/norm_loss` `[num_steps]`; `eval/xs` `[evaluations]`; and for the
        splits train, outer_valid and test `eval/{split}/loss`, `/norm_loss` and `/aux/{name}`
        `[evaluations]`. Every key that ends in `/norm_loss` is duplicated as `/loss_normalized`, the name
        that the tutorials use.
    """
    run = _TrainingRun(
        task_family=single_task_to_family(task, eval_task=eval_task),
        learned_opt=learned_optimizer_from_opt(opt),
        num_steps=num_steps,
        splits=_SINGLE_TASK_SPLITS,
    )
    schedule = _Schedule(num_steps, eval_every, eval_batches, last_eval_batches, steps_per_call=eval_every)
    with jax.default_device(device):
        problems = _Problem(theta=None, task_params=jnp.zeros((1,), jnp.int32), key=key[None])
        curves = _training_curves(run, problems, schedule)
    of_task = {name: curve[0] for name, curve in curves.items()}
    normalized = {
        name.replace("/norm_loss", "/loss_normalized"): curve
        for name, curve in of_task.items()
        if name.endswith("/norm_loss")
    }
    return of_task | normalized


def multi_task_training_curves(  # noqa: PLR0913 (the argument names of the API that this keeps)
    task_family: TaskFamily,
    learned_opt: LearnedOptimizer,
    theta: Theta,
    n_tasks: int,
    seed: int | None = None,
    key: PRNGKey | None = None,
    task_params: TaskParams | None = None,
    n_eval_batches: int = 1,
    last_eval_batches: int = 1,
    eval_every: int = 10,
    steps_per_jit: int = 10,
    eval_just_at_end: bool = False,
    steps: int = 10000,
    splits: Sequence[str] = ("train",),
    with_aux_values: Sequence[str] = (),
    progress: Callable[[int], object] | None = None,
) -> Curves:
    """Train several tasks of a family in parallel with the learned optimizer `learned_opt.opt_fn(theta)`.

    Args:
        task_family: The distribution of tasks.
        learned_opt: The learned optimizer that `theta` parametrises.
        theta: Outer parameters, shared by all tasks.
        n_tasks: Number of tasks to train.
        seed: Seed for the key if `key` is None; 0 if neither is given.
        key: Consumed; the source of all randomness, including the tasks.
        task_params: Tasks to train, stacked to leaves `[n_tasks, ...]`; sampled if None.
        n_eval_batches: Batches of each split that an evaluation averages over.
        last_eval_batches: The same, for the evaluation after the last update.
        eval_every: Updates between two evaluations.
        steps_per_jit: Updates per compiled call; does not affect the results.
        eval_just_at_end: Whether to evaluate the final parameters only.
        steps: Number of updates.
        splits: Splits to evaluate on.
        with_aux_values: Names of aux values to report.
        progress: Called with the number of updates made, after each compiled call; this waits for the
            updates.

    Returns:
        Curves with a leading axis of tasks: `train/xs`, `train/loss` and `train/norm_loss`
        `[n_tasks, steps]`; and `eval/xs`, `eval/{split}/loss`, `/norm_loss` and `/aux/{name}`
        `[n_tasks, evaluations]`.

    Raises:
        ValueError: both `seed` and `key` are given, the task has no aux value of a name in `with_aux_values`,
            or a number of steps or batches is less than one.
    """
    if seed is not None and key is not None:
        raise ValueError(f"multi_task_training_curves(seed={seed}, key=...): give either a seed or a key")
    key = jax.random.key(seed or 0) if key is None else key
    sample_key, run_key = jax.random.split(key)
    if task_params is None:
        task_params = jax.vmap(task_family.sample)(jax.random.split(sample_key, n_tasks))
    problems = _Problem(theta, task_params, key=jax.random.split(run_key, n_tasks))
    run = _TrainingRun(task_family, learned_opt, num_steps=steps, splits=tuple(splits))
    schedule = _Schedule(
        steps, None if eval_just_at_end else eval_every, n_eval_batches, last_eval_batches, steps_per_jit
    )
    return _with_aux_values(_training_curves(run, problems, schedule, progress), with_aux_values)


@dataclasses.dataclass(frozen=True)
class _Schedule:
    """The evaluation steps and batches, and the division of training into compiled calls."""

    num_steps: int
    eval_every: int | None
    eval_batches: int
    last_eval_batches: int
    steps_per_call: int

    def __post_init__(self) -> None:
        for field, value in dataclasses.asdict(self).items():
            if value is not None and value < 1:
                raise ValueError(f"training curves: {field}={value}, but {field} must be at least 1")

    @property
    def eval_steps(self) -> range:
        """The updates that are preceded by an evaluation."""
        return range(0) if self.eval_every is None else range(0, self.num_steps, self.eval_every)

    def segments(self) -> Iterator[tuple[int, int]]:
        """Yield the first step and the length of each segment of training without an evaluation inside."""
        starts = sorted({*range(0, self.num_steps, self.steps_per_call), *self.eval_steps})
        for start, stop in itertools.pairwise([*starts, self.num_steps]):
            yield start, stop - start


class _Problem(NamedTuple):
    """The traced part of the task of one curve."""

    theta: Theta
    task_params: TaskParams
    key: PRNGKey

    def keys(self) -> tuple[PRNGKey, PRNGKey, PRNGKey]:
        """Return the keys for initialisation, training and evaluation."""
        init_key, train_key, eval_key = jax.random.split(self.key, 3)
        return init_key, train_key, eval_key


class _Data(NamedTuple):
    """The data of one call, by split.

    Attributes:
        arrays: splits on the device, from which batches are drawn by key.
        streamed: the batches of splits that are iterators, leaves `[tasks, batches, ...]`.
    """

    arrays: dict[str, PyTree]
    streamed: dict[str, Batch]

    def streamed_of(self, split: str) -> Batch:
        """Return the batches of a split, or `()` if it is not streamed."""
        return self.streamed.get(split, ())


class _Source(NamedTuple):
    """The source of the data of all calls; `owner` names its owner in errors."""

    datasets: Datasets | None
    splits: tuple[str, ...]
    owner: str

    def data(self, num_tasks: int, num_batches: int) -> _Data:
        """Return the data of one call: `num_batches` batches of each split for each task."""
        data = _Data({}, {})
        if self.datasets is None:
            return data
        for split in self.splits:
            resident = self.datasets.resident([split])
            if resident is not None:
                data.arrays[split] = resident[split].arrays
                continue
            batches = self.datasets.next_batches(split, num_tasks * num_batches, self.owner)
            in_a_row = stacked(batches, f"the split {split!r} of {self.owner}")
            data.streamed[split] = jax.tree.map(
                lambda leaf: leaf.reshape(num_tasks, num_batches, *leaf.shape[1:]), in_a_row
            )
        return data


_PROBLEM_AXES = _Problem._make((None, 0, 0))  # theta is shared
_CALL_AXES = (_PROBLEM_AXES, 0, None, _Data._make((None, 0)))  # problem, optimizer state, step, data


@dataclasses.dataclass(frozen=True)
class _TrainingRun:
    """The static part of one task's training, with its pure functions."""

    task_family: TaskFamily
    learned_opt: LearnedOptimizer
    num_steps: int
    splits: tuple[str, ...]

    def init(self, problem: _Problem) -> OptState:
        init_key, _, _ = problem.keys()
        params_key, opt_key = jax.random.split(init_key)
        task = self.task_family.task_fn(problem.task_params)
        opt = self.learned_opt.opt_fn(problem.theta)
        return initial_opt_state(opt, task, params_key, opt_key, self.num_steps)

    def train(
        self, problem: _Problem, opt_state: OptState, start: ScalarLike, data: _Data, num_steps: int
    ) -> tuple[OptState, Metrics]:
        """Make the updates `start` to `start + num_steps - 1`; metrics are `[num_steps]`."""
        task = self.task_family.task_fn(problem.task_params)
        opt = self.learned_opt.opt_fn(problem.theta)
        _, train_key, _ = problem.keys()

        def step(opt_state: OptState, xs: tuple[Scalar, Batch]) -> tuple[OptState, Metrics]:
            index, streamed = xs
            batch_key, loss_key, update_key = jax.random.split(jax.random.fold_in(train_key, index), 3)
            batch = _sample(self.task_family.datasets, "train", data, batch_key, streamed)
            opt_state, loss = updated(opt, task, opt_state, (loss_key, update_key), batch)
            return opt_state, {"loss": loss, "norm_loss": task.normalizer(loss)}

        return jax.lax.scan(
            step, opt_state, (jnp.asarray(start) + jnp.arange(num_steps), data.streamed_of("train"))
        )

    def evaluate(
        self, problem: _Problem, opt_state: OptState, step: ScalarLike, data: _Data, num_batches: int
    ) -> Metrics:
        """Return the means over `num_batches` batches of every split, as `{split}/{metric}` `[]`."""
        task = self.task_family.eval_task_fn(problem.task_params)
        params, state = self.learned_opt.opt_fn(problem.theta).get_params_state(opt_state)
        _, _, eval_key = problem.keys()

        def metrics(split: str, key: PRNGKey, streamed: Batch) -> Metrics:
            batch_key, loss_key = jax.random.split(key)
            batch = _sample(self.task_family.eval_datasets, split, data, batch_key, streamed)
            loss, _, aux = task.loss_with_state_and_aux(params, state, loss_key, batch)
            named_aux = {f"aux/{name}": value for name, value in aux.items()}
            return {"loss": loss, "norm_loss": task.normalizer(loss), **named_aux}

        means: Metrics = {}
        split_keys = jax.random.split(jax.random.fold_in(eval_key, step), len(self.splits))
        for split, split_key in zip(self.splits, split_keys, strict=True):
            keys = jax.random.split(split_key, num_batches)
            values = jax.vmap(functools.partial(metrics, split))(keys, data.streamed_of(split))
            means |= {f"{split}/{name}": jnp.mean(value, axis=0) for name, value in values.items()}
        return means


@functools.partial(jax.jit, static_argnames=("run",))
def _init(run: _TrainingRun, problems: _Problem) -> OptState:
    return jax.vmap(run.init, in_axes=(_PROBLEM_AXES,))(problems)


@functools.partial(jax.jit, static_argnames=("run", "num_steps"))
def _train(
    run: _TrainingRun,
    problems: _Problem,
    opt_states: OptState,
    start: ScalarLike,
    data: _Data,
    num_steps: int,
) -> tuple[OptState, Metrics]:
    train = functools.partial(run.train, num_steps=num_steps)
    return jax.vmap(train, in_axes=_CALL_AXES)(problems, opt_states, start, data)


@functools.partial(jax.jit, static_argnames=("run", "num_batches"))
def _evaluate(
    run: _TrainingRun,
    problems: _Problem,
    opt_states: OptState,
    step: ScalarLike,
    data: _Data,
    num_batches: int,
) -> Metrics:
    evaluate = functools.partial(run.evaluate, num_batches=num_batches)
    return jax.vmap(evaluate, in_axes=_CALL_AXES)(problems, opt_states, step, data)


def _training_curves(
    run: _TrainingRun,
    problems: _Problem,
    schedule: _Schedule,
    progress: Callable[[int], object] | None = None,
) -> Curves:
    """Return the curves `[tasks, ...]` of `problems`; all leaves except theta's lead with `[tasks]`."""
    train_data = _Source(run.task_family.datasets, ("train",), run.task_family.name)
    eval_data = _Source(run.task_family.eval_datasets, run.splits, run.task_family.name)
    num_tasks = len(problems.key)
    opt_states = _init(run, problems)
    trained: list[Metrics] = []
    evaluated: list[Metrics] = []
    for start, length in schedule.segments():
        if start in schedule.eval_steps:
            data = eval_data.data(num_tasks, schedule.eval_batches)
            evaluated.append(_evaluate(run, problems, opt_states, start, data, schedule.eval_batches))
        data = train_data.data(num_tasks, length)
        opt_states, metrics = _train(run, problems, opt_states, start, data, length)
        trained.append(metrics)
        if progress is not None:
            metrics["loss"].block_until_ready()
            progress(start + length)
    data = eval_data.data(num_tasks, schedule.last_eval_batches)
    evaluated.append(_evaluate(run, problems, opt_states, run.num_steps, data, schedule.last_eval_batches))
    return {
        "train/xs": np.tile(np.arange(run.num_steps), (num_tasks, 1)),
        "eval/xs": np.tile([*schedule.eval_steps, run.num_steps], (num_tasks, 1)),
        **_joined("train", functools.partial(np.concatenate, axis=1), trained),
        **_joined("eval", functools.partial(np.stack, axis=1), evaluated),
    }


def _joined(
    prefix: str, join: Callable[[list[jax.Array]], npt.NDArray[Any]], metrics: list[Metrics]
) -> Curves:
    return {f"{prefix}/{name}": join([values[name] for values in metrics]) for name in metrics[0]}


def _sample(datasets: Datasets | None, split: str, data: _Data, key: PRNGKey, streamed: Batch) -> Batch:
    """Return the streamed batch, or a batch drawn by `key` from resident data."""
    resident = None if datasets is None else datasets.resident([split])
    return streamed if resident is None else sample_batch(data.arrays[split], key, resident[split].batch_size)


def _with_aux_values(curves: Curves, names: Sequence[str]) -> Curves:
    """Return `curves` with only the aux values in `names`."""
    known = {curve.partition("/aux/")[2] for curve in curves if "/aux/" in curve}
    for name in names:
        if name not in known:
            raise ValueError(
                f"multi_task_training_curves(with_aux_values={list(names)}): the task reports no aux value "
                f"{name!r}, it reports {sorted(known)}"
            )
    return {
        curve: values
        for curve, values in curves.items()
        if "/aux/" not in curve or curve.partition("/aux/")[2] in names
    }
