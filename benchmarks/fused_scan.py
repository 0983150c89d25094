"""An outer update compared with a hand-written scan (`benchmarks.hand_written`) of the same inner steps."""

import dataclasses
import math
from collections.abc import Callable, Iterator

import jax
import optax

from benchmarks.hand_written import Scan, mlp_scan, quadratic_scan
from benchmarks.interleaved import Timing, compare
from unspool.learned_optimizers.base import LearnableAdam, LearnedOptimizer
from unspool.learned_optimizers.mlp_lopt import MLPLOpt
from unspool.outer_trainers.gradient_learner import SingleMachineGradientLearner
from unspool.outer_trainers.lopt_truncated_step import VectorizedLOptTruncatedStep
from unspool.outer_trainers.truncated_pes import TruncatedPES
from unspool.outer_trainers.truncation_schedule import LogUniformLengthSchedule
from unspool.tasks.base import TaskFamily, single_task_to_family
from unspool.tasks.fixed.image_mlp import ImageMLP_Digits8_Relu32
from unspool.tasks.quadratics import FixedDimQuadraticFamily

_MLP_SIZE = (8, 20)  # tasks and steps of a truncation


@dataclasses.dataclass(frozen=True)
class Row:
    """One line of the table."""

    name: str
    update: Timing
    scan: Timing
    inner_steps: int

    def __str__(self) -> str:
        minimum = self.update.minimum_ms / self.scan.minimum_ms
        median = self.update.median_ms / self.scan.median_ms
        rate = self.inner_steps / (self.update.median_ms / 1e3)
        return (
            f"{self.name:<32} update {self.update.median_ms:8.3f} ms (min {self.update.minimum_ms:8.3f})   "
            f"fused scan {self.scan.median_ms:8.3f} ms (min {self.scan.minimum_ms:8.3f})   "
            f"ratio {median:5.2f} (of minima {minimum:5.2f})   {rate:10,.0f} inner steps/s"
        )


def quadratic(seconds: float) -> Row:
    """16 quadratics of 10 dimensions under LearnableAdam, truncation 50."""
    num_tasks, steps, dim = 16, 50, 10
    update = outer_update(_learner(FixedDimQuadraticFamily(dim), LearnableAdam(), num_tasks, steps))
    scan = quadratic_scan(num_tasks, steps, dim)
    return measured("quadratic 16 x 50", update, scan, num_tasks * steps, seconds)


def mlp(seconds: float) -> Iterator[Row]:
    """8 MLPs 64-32-10 on 8x8 digits under MLPLOpt, truncation 20, compared with two versions of the scan."""
    num_tasks, steps = _MLP_SIZE
    task, update = ImageMLP_Digits8_Relu32(), outer_update(mlp_learner())
    for name, features_first in (("rows", True), ("columns", False)):
        scan = mlp_scan(task, num_tasks, steps, features_first=features_first)
        yield measured(f"MLP 64-32-10, 8 x 20, {name}", update, scan, num_tasks * steps, seconds)


def mlp_learner() -> SingleMachineGradientLearner:
    """Returns the learner of the MLP problem."""
    return _learner(single_task_to_family(ImageMLP_Digits8_Relu32()), MLPLOpt(), *_MLP_SIZE)


def _learner(
    family: TaskFamily, optimizer: LearnedOptimizer, num_tasks: int, steps: int
) -> SingleMachineGradientLearner:
    step = VectorizedLOptTruncatedStep(family, optimizer, LogUniformLengthSchedule(100, 1000), num_tasks)
    estimator = TruncatedPES(step, trunc_length=steps, steps_per_jit=math.gcd(10, steps))
    return SingleMachineGradientLearner(optimizer, [estimator], optax.adam(1e-3))


def outer_update(learner: SingleMachineGradientLearner) -> Callable[[], object]:
    """Returns a function that computes one update per call and carries the state."""
    key = jax.random.PRNGKey(0)
    state = learner.init(key)

    def update() -> object:
        nonlocal state
        state, loss, _ = learner.update(state, key)
        return loss

    return update


def measured(name: str, update: Callable[[], object], scan: Scan, model_steps: int, seconds: float) -> Row:
    """Returns a row; `model_steps` counts the steps of one member of each antithetic pair."""
    timings = compare(update, scan, seconds_per_block=seconds)
    return Row(name, *timings, inner_steps=2 * model_steps)
