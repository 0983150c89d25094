"""Evaluates a meta-trained theta on held-out tasks, against its initialisation and Adam."""

import dataclasses
import functools
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import jax
import numpy as np
import numpy.typing as npt

from protos.exit_codes import UsageError
from unspool.eval_training import Curves, multi_task_training_curves
from unspool.experiment import Experiment
from unspool.lanes import root_key, theta_key
from unspool.learned_optimizers.base import learned_optimizer_from_opt
from unspool.optimizers.base import Adam
from unspool.outer_trainers.lopt_truncated_step import VectorizedLOptTruncatedStep
from unspool.outer_trainers.truncation_schedule import TruncationSchedule
from unspool.tasks.base import TaskFamily
from unspool.types import Theta

Progress = Callable[[str, int, int], None]
"""Called with an optimizer's name, its total steps, and the steps done."""

META_TRAINED: Final = "meta-trained"
INITIALISATION: Final = "initialisation"

# A random stream apart from those of the lanes, whose numbers are small: no evaluation task was trained on.
_EVALUATION_STREAM = zlib.crc32(b"evaluation")
_DEFAULT_STEPS = 500
_EVALUATIONS = 50
_BATCHES = 4
_LAST_BATCHES = 20


@dataclasses.dataclass(frozen=True)
class Mean:
    """A mean over tasks, and its standard error.

    Attributes:
        mean: over the tasks with a finite value.
        standard_error: of that mean.
    """

    mean: float
    standard_error: float

    @classmethod
    def of(cls, values: npt.NDArray[Any]) -> "Mean":
        """Summarise `values` `[tasks]`."""
        finite = values[np.isfinite(values)]
        if not finite.size:
            return cls(float("nan"), float("nan"))
        error = float(np.std(finite, ddof=1)) / finite.size**0.5 if finite.size > 1 else float("nan")
        return cls(float(np.mean(finite)), error)


@dataclasses.dataclass(frozen=True)
class Contender:
    """The results of one optimizer.

    Attributes:
        name: of the optimizer.
        curves: as returned by `multi_task_training_curves`.
        final_loss: after the last inner step, by split.
        mean_loss: over the whole training, on the training batches.
        diverged_tasks: number of tasks whose final loss is not finite; the means exclude them.
    """

    name: str
    curves: Curves
    final_loss: dict[str, Mean]
    mean_loss: Mean
    diverged_tasks: int


def evaluate(
    experiment: Experiment,
    theta: Theta,
    num_tasks: int,
    steps: int,
    estimator: int = 0,
    progress: Progress = lambda name, steps, done: None,
) -> Iterator[Contender]:
    """Train held-out tasks with `theta`, with the run's own initial theta, and with Adam; yield each in turn.

    Args:
        experiment: the experiment in which `theta` was meta-trained.
        theta: the outer parameters to evaluate.
        num_tasks: number of tasks, the same for each optimizer.
        steps: inner steps.
        estimator: index of the estimator whose tasks are used.
        progress: called with each optimizer's progress.

    Raises:
        UsageError: the estimator has no tasks to train.
    """
    one = experiment.estimator(estimator)
    step = getattr(one, "truncated_step", None)  # a user's own estimator may have none
    if not isinstance(step, VectorizedLOptTruncatedStep):
        raise UsageError(
            f"estimators[{estimator}] unrolls {one.task_name()}; evaluate needs a task_family to train on"
        )
    key = jax.random.fold_in(root_key(experiment.seed), _EVALUATION_STREAM)
    initial_theta = step.learned_opt.init(theta_key(experiment.seed))
    adam = learned_optimizer_from_opt(Adam(1e-3))
    for name, learned_opt, its_theta in (
        (META_TRAINED, step.learned_opt, theta),
        (INITIALISATION, step.learned_opt, initial_theta),
        ("Adam, 1e-3", adam, None),
    ):
        progress(name, steps, 0)
        curves = multi_task_training_curves(
            step.task_family,
            learned_opt,
            its_theta,
            num_tasks,
            key=key,
            steps=steps,
            splits=_splits(step.task_family),
            eval_every=max(1, steps // _EVALUATIONS),
            n_eval_batches=_BATCHES,
            last_eval_batches=_LAST_BATCHES,
            progress=functools.partial(progress, name, steps),
        )
        yield _contender(name, curves, _splits(step.task_family))


def trained_steps(experiment: Experiment, estimator: int) -> int:
    """Return the longest episode of the estimator's truncation schedule, or a default if it is unknown."""
    one = experiment.estimator(estimator)
    step = getattr(one, "truncated_step", None)
    schedule = getattr(one, "truncation_schedule", getattr(step, "trunc_sched", None))
    known = schedule.longest_episode() if isinstance(schedule, TruncationSchedule) else None
    return known or _DEFAULT_STEPS


def _splits(task_family: TaskFamily) -> tuple[str, ...]:
    return ("train",) if task_family.datasets is None else ("train", "test")


def _contender(name: str, curves: Curves, splits: Sequence[str]) -> Contender:
    final = {split: curves[f"eval/{split}/loss"][:, -1] for split in splits}
    return Contender(
        name=name,
        curves=curves,
        final_loss={split: Mean.of(losses) for split, losses in final.items()},
        mean_loss=Mean.of(curves["train/loss"].mean(axis=1)),
        diverged_tasks=int(np.sum(~np.isfinite(final["train"]))),
    )
