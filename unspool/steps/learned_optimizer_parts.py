"""Estimators for learned optimizers, built from the parts of their truncated step."""

import dataclasses
from typing import Any, TypeVar, cast

from unspool.learned_optimizers.base import LearnedOptimizer
from unspool.outer_trainers.gradient_estimator import GradientEstimator
from unspool.outer_trainers.lopt_truncated_step import VectorizedLOptTruncatedStep
from unspool.outer_trainers.truncation_schedule import (
    ConstantTruncationSchedule,
    NeverEndingTruncationSchedule,
    TruncationSchedule,
)
from unspool.tasks.base import TaskFamily

E = TypeVar("E", bound=GradientEstimator)


def estimator_from_parts(
    estimator: type[E],
    *,
    task_family: TaskFamily,
    learned_opt: LearnedOptimizer,
    num_tasks: int,
    trunc_sched: TruncationSchedule | None = None,
    **options: Any,
) -> E:
    """Return an estimator with the truncated step that it unrolls.

    Args:
        estimator: the class, a dataclass whose first field is the step.
        task_family: the tasks to train on.
        learned_opt: the learned optimizer that theta parametrises.
        num_tasks: number of parallel inner training runs.
        trunc_sched: the length of episodes. Estimators that unroll whole episodes accept `unroll_length`
            instead.
        **options: options of the step (`random_initial_iteration_offset`, `meta_loss_split`, ...) and of the
            estimator.

    Raises:
        ValueError: the length of episodes is given twice, or not at all.
    """
    if any(field.name == "truncation_schedule" for field in dataclasses.fields(cast(Any, estimator))):
        # The estimator ends episodes itself; the step must not.
        options["truncation_schedule"] = _whole_episodes(estimator, trunc_sched, options)
        trunc_sched = NeverEndingTruncationSchedule()
    if trunc_sched is None:
        raise ValueError(f"{estimator.__name__}(trunc_sched=None): give the schedule that ends episodes")
    fields_of_step = {field.name for field in dataclasses.fields(VectorizedLOptTruncatedStep)}
    of_step = {name: options.pop(name) for name in fields_of_step & options.keys()}
    step = VectorizedLOptTruncatedStep(task_family, learned_opt, trunc_sched, num_tasks, **of_step)
    made: E = cast(Any, estimator)(step, **options)
    return made


def _whole_episodes(
    estimator: type[GradientEstimator], trunc_sched: TruncationSchedule | None, options: dict[str, Any]
) -> TruncationSchedule:
    unroll_length = options.pop("unroll_length", None)
    if (trunc_sched is None) == (unroll_length is None):
        raise ValueError(
            f"{estimator.__name__}(trunc_sched={trunc_sched}, unroll_length={unroll_length}): give the "
            "episode's length as exactly one of them"
        )
    return trunc_sched or ConstantTruncationSchedule(unroll_length)
