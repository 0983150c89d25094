"""Every estimator of the library on the two problems of `benchmarks.fused_scan`."""

from collections.abc import Callable, Iterator

from benchmarks.compiled import Cost, cost
from unspool.learned_optimizers.base import LearnableAdam, LearnedOptimizer
from unspool.learned_optimizers.mlp_lopt import MLPLOpt
from unspool.outer_trainers.dodge import DODGE
from unspool.outer_trainers.full_es import FullES
from unspool.outer_trainers.full_grad import FullGrad
from unspool.outer_trainers.gpes import GPES
from unspool.outer_trainers.gradient_estimator import GradientEstimator
from unspool.outer_trainers.lopt_truncated_step import VectorizedLOptTruncatedStep
from unspool.outer_trainers.truncated_es import TruncatedES
from unspool.outer_trainers.truncated_es_shared_noise import TruncatedESSharedNoise
from unspool.outer_trainers.truncated_grad import TruncatedGrad
from unspool.outer_trainers.truncated_pes import TruncatedPES
from unspool.outer_trainers.truncation_schedule import (
    ConstantTruncationSchedule,
    LogUniformLengthSchedule,
    NeverEndingTruncationSchedule,
)
from unspool.tasks.base import TaskFamily, single_task_to_family
from unspool.tasks.fixed.image_mlp import ImageMLP_Digits8_Relu32
from unspool.tasks.quadratics import FixedDimQuadraticFamily

Make = Callable[[VectorizedLOptTruncatedStep, int], GradientEstimator]

TRUNCATED: dict[str, Make] = {
    "TruncatedPES": lambda step, steps: TruncatedPES(step, steps),
    "TruncatedPES, members in sequence": lambda step, steps: TruncatedPES(
        step, steps, stack_antithetic_samples=False
    ),
    "GPES, new noise every 50 steps": lambda step, steps: GPES(step, steps, noise_length=50),
    "TruncatedESSharedNoise": lambda step, steps: TruncatedESSharedNoise(step, steps),
    "TruncatedES": lambda step, steps: TruncatedES(step, steps),
    "TruncatedGrad": lambda step, steps: TruncatedGrad(step, steps),
    "DODGE": lambda step, steps: DODGE(step, steps),
}
WHOLE_EPISODES: dict[str, Make] = {
    "FullES, episodes of 100": lambda step, _: FullES(step, ConstantTruncationSchedule(100)),
    "FullGrad, episodes of 100": lambda step, _: FullGrad(step, ConstantTruncationSchedule(100)),
}


def all_estimators(seconds: float) -> Iterator[Cost]:
    """Returns one line for each problem and estimator."""
    yield from costs("quadratic", FixedDimQuadraticFamily(10), LearnableAdam(), 16, 50, seconds)
    family = single_task_to_family(ImageMLP_Digits8_Relu32())
    yield from costs("MLP", family, MLPLOpt(), 8, 20, seconds)


def costs(
    problem: str,
    family: TaskFamily,
    learned_opt: LearnedOptimizer,
    num_tasks: int,
    steps: int,
    seconds: float,
) -> Iterator[Cost]:
    """Measures each estimator on one problem; `steps` is the length of truncations."""
    for estimators, schedule in (
        (TRUNCATED, LogUniformLengthSchedule(100, 1000)),
        (WHOLE_EPISODES, NeverEndingTruncationSchedule()),
    ):
        step = VectorizedLOptTruncatedStep(family, learned_opt, schedule, num_tasks)
        for name, make in estimators.items():
            yield cost(f"{problem}, {name}", make(step, steps), seconds)
