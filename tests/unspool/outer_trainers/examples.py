"""One example of every estimator, for the tests of common laws. Add new estimators here."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from unspool.lanes import init_lane
from unspool.learned_optimizers.base import LearnableAdam
from unspool.outer_trainers.dodge import DODGE
from unspool.outer_trainers.full_es import FullES
from unspool.outer_trainers.full_grad import FullGrad
from unspool.outer_trainers.gpes import GPES
from unspool.outer_trainers.gradient_estimator import (
    GradientEstimator,
    GradientEstimatorState,
    OuterState,
    WorkerWeights,
)
from unspool.outer_trainers.lopt_truncated_step import VectorizedLOptTruncatedStep
from unspool.outer_trainers.truncated_es import TruncatedES
from unspool.outer_trainers.truncated_es_shared_noise import TruncatedESSharedNoise
from unspool.outer_trainers.truncated_grad import TruncatedGrad
from unspool.outer_trainers.truncated_pes import TruncatedPES
from unspool.outer_trainers.truncated_step import VectorizedStep
from unspool.outer_trainers.truncation_schedule import (
    ConstantTruncationSchedule,
    LogUniformLengthSchedule,
    NeverEndingTruncationSchedule,
    TruncationSchedule,
)
from unspool.tasks.base import TaskFamily
from unspool.tasks.quadratics import FixedDimQuadraticFamily
from unspool.types import PRNGKey

NUM_TASKS = 3
STEPS = 10

Make = Callable[..., GradientEstimator]

JITTED_IN_PIECES: dict[str, Make] = {
    "TruncatedPES": lambda step, steps_per_jit=5, **kw: TruncatedPES(
        step, STEPS, steps_per_jit=steps_per_jit, **kw
    ),
    "TruncatedES": lambda step, steps_per_jit=5, **kw: TruncatedES(
        step, STEPS, steps_per_jit=steps_per_jit, **kw
    ),
    "TruncatedGrad": lambda step, steps_per_jit=5, **kw: TruncatedGrad(
        step, STEPS, steps_per_jit=steps_per_jit, **kw
    ),
    "FullES": lambda step, steps_per_jit=5, **kw: FullES(
        step, ConstantTruncationSchedule(2 * STEPS), steps_per_jit=steps_per_jit, **kw
    ),
}
NOISE_REUSING: dict[str, Make] = {
    "TruncatedESSharedNoise": lambda step, **kw: TruncatedESSharedNoise(step, STEPS, **kw),
    "GPES": lambda step, **kw: GPES(step, STEPS, noise_length=4, **kw),
    "DODGE": lambda step, **kw: DODGE(step, STEPS, **kw),
}
WHOLE_EPISODES: dict[str, Make] = {
    "FullES": lambda step, **kw: FullES(step, LogUniformLengthSchedule(10, 30), steps_per_jit=5, **kw),
    "FullGrad": lambda step, **kw: FullGrad(step, LogUniformLengthSchedule(10, 30), **kw),
}
ESTIMATORS = JITTED_IN_PIECES | NOISE_REUSING | WHOLE_EPISODES
DIFFERENTIATING = ("TruncatedGrad", "FullGrad", "DODGE")
EVOLUTION_STRATEGIES = {
    name: make for name, make in ESTIMATORS.items() if name not in ("TruncatedGrad", "FullGrad")
}
ANTITHETIC = {name: make for name, make in EVOLUTION_STRATEGIES.items() if name != "DODGE"}


def learned_optimizer_step(
    name: str, family: TaskFamily | None = None, schedule: TruncationSchedule | None = None, **options: Any
) -> VectorizedStep:
    """Return a step for the estimator `name`: never-ending for estimators that unroll whole episodes."""
    if name in WHOLE_EPISODES:
        schedule = NeverEndingTruncationSchedule()
    family = FixedDimQuadraticFamily(4) if family is None else family
    schedule = ConstantTruncationSchedule(7) if schedule is None else schedule
    return VectorizedLOptTruncatedStep(family, LearnableAdam(0.1), schedule, NUM_TASKS, **options)


def example(name: str, **options: Any) -> GradientEstimator:
    """Return an estimator of the gradient of LearnableAdam on quadratics."""
    return ESTIMATORS[name](learned_optimizer_step(name), **options)


def weights_of(estimator: GradientEstimator, seed: int = 0) -> WorkerWeights:
    """Return initial weights."""
    theta = estimator.truncated_step.outer_init(jax.random.PRNGKey(seed))
    return WorkerWeights(theta, None, OuterState(jnp.int32(0)))


def first_state(estimator: GradientEstimator, weights: WorkerWeights, key: PRNGKey) -> GradientEstimatorState:
    """Return `estimator.init_worker_state(...)`, compiled once for equal estimators."""
    return init_lane(estimator, weights, key, lane=0)
