"""Unspool: meta-training of learned optimizers, and of any other unrolled system.

The library is pure functions of arrays. An inner problem is a `Task`, sampled from a `TaskFamily`; an
`Optimizer` trains it, and a `LearnedOptimizer` turns outer parameters theta into one; the gradient estimators
of `unspool.outer_trainers` say in which direction theta should move. The names below are the abstractions to
implement and what moves theta; implementations are in their own modules. None is imported before it is used,
so that `import unspool` is cheap.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from unspool.learned_optimizers.base import LearnedOptimizer
    from unspool.optimizers.base import Optimizer, opt_to_optax_opt
    from unspool.outer_trainers.gradient_learner import (
        GradientEstimator,
        GradientLearner,
        SingleMachineGradientLearner,
    )
    from unspool.outer_trainers.truncated_step import TruncatedStep, VectorizedTruncatedStep
    from unspool.outer_trainers.truncation_schedule import TruncationSchedule
    from unspool.tasks.base import Task, TaskFamily, single_task_to_family

__all__ = [
    "GradientEstimator",
    "GradientLearner",
    "LearnedOptimizer",
    "Optimizer",
    "SingleMachineGradientLearner",
    "Task",
    "TaskFamily",
    "TruncatedStep",
    "TruncationSchedule",
    "VectorizedTruncatedStep",
    "opt_to_optax_opt",
    "single_task_to_family",
]

_HOMES = {
    "GradientEstimator": "unspool.outer_trainers.gradient_learner",
    "GradientLearner": "unspool.outer_trainers.gradient_learner",
    "LearnedOptimizer": "unspool.learned_optimizers.base",
    "Optimizer": "unspool.optimizers.base",
    "SingleMachineGradientLearner": "unspool.outer_trainers.gradient_learner",
    "Task": "unspool.tasks.base",
    "TaskFamily": "unspool.tasks.base",
    "TruncatedStep": "unspool.outer_trainers.truncated_step",
    "TruncationSchedule": "unspool.outer_trainers.truncation_schedule",
    "VectorizedTruncatedStep": "unspool.outer_trainers.truncated_step",
    "opt_to_optax_opt": "unspool.optimizers.base",
    "single_task_to_family": "unspool.tasks.base",
}


def __getattr__(name: str) -> object:
    """Import a public name when it is first asked for."""
    if name not in _HOMES:
        raise AttributeError(f"module 'unspool' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    """List the public names, imported or not."""
    return sorted({*globals(), *__all__})
