"""Every constructor of the library refuses what it cannot work with, by name and before any work."""

import dataclasses
import math
import re
import typing
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
import pytest

from tests.unspool.outer_trainers.tiny_tasks import Position
from tests.unspool.systems.examples import TABLES as SYSTEM_TABLES
from tests.unspool.systems.examples import example as system_example
from unspool.learned_optimizers.base import (
    FixedOptimizer,
    LearnableAdam,
    LearnableSGD,
    LearnableSGDM,
    learned_optimizer_from_opt,
)
from unspool.learned_optimizers.mlp_lopt import MLPLOpt
from unspool.optimizers import SGD, SGDM, Adam, AdamW, GradientClipOptimizer, NAdamW, OptaxOptimizer, RMSProp
from unspool.outer_trainers.dodge import DODGE
from unspool.outer_trainers.full_es import FullES
from unspool.outer_trainers.full_grad import FullGrad
from unspool.outer_trainers.gpes import GPES
from unspool.outer_trainers.lopt_truncated_step import (
    SimpleLOptTruncatedStep,
    SimpleVecLOptTruncatedStep,
    VectorizedLOptTruncatedStep,
)
from unspool.outer_trainers.truncated_es import TruncatedES
from unspool.outer_trainers.truncated_es_shared_noise import TruncatedESSharedNoise
from unspool.outer_trainers.truncated_grad import TruncatedGrad
from unspool.outer_trainers.truncated_pes import TruncatedPES
from unspool.outer_trainers.truncated_step import VectorizedTruncatedStep
from unspool.outer_trainers.truncation_schedule import (
    ConstantTruncationSchedule,
    LogUniformLengthSchedule,
    NeverEndingTruncationSchedule,
    ScheduledTruncationSchedule,
)
from unspool.systems.influence_balancing import InfluenceBalancing
from unspool.tasks.base import single_task_to_family
from unspool.tasks.datasets.base import Split
from unspool.tasks.fixed.image_mlp import ImageMLP
from unspool.tasks.quadratics import (
    FixedDimQuadraticFamily,
    FixedDimQuadraticFamilyData,
    NoisyMeanQuadraticTask,
    NoisyQuadraticFamily,
    QuadraticTask,
)

pytestmark = pytest.mark.unchecked
LENGTH = ConstantTruncationSchedule(3)
FAMILY = FixedDimQuadraticFamily(3)


def lopt_step(**changes: Any) -> VectorizedLOptTruncatedStep:
    options = {"task_family": FAMILY, "learned_opt": LearnableSGD(), "trunc_sched": LENGTH, "num_tasks": 2}
    return VectorizedLOptTruncatedStep(**{**options, **changes})


CONFIGURED = [
    ConstantTruncationSchedule(3),
    LogUniformLengthSchedule(2, 5),
    ScheduledTruncationSchedule(lambda step, max_steps: step, max_steps=4, std=1.0),
    QuadraticTask(),
    NoisyMeanQuadraticTask(),
    FixedDimQuadraticFamily(),
    FixedDimQuadraticFamilyData(),
    NoisyQuadraticFamily(),
    ImageMLP("Digits", 8, (4,)),
    SGD(),
    SGDM(),
    Adam(),
    AdamW(),
    RMSProp(),
    NAdamW(),
    GradientClipOptimizer(SGD()),
    LearnableSGD(),
    LearnableSGDM(),
    LearnableAdam(),
    MLPLOpt(),
    lopt_step(),
    SimpleLOptTruncatedStep(QuadraticTask(), LearnableSGD()),
    VectorizedTruncatedStep(InfluenceBalancing(), 2),
    TruncatedPES(lopt_step(), 4, steps_per_jit=4),
    TruncatedES(lopt_step(), 4, steps_per_jit=4),
    TruncatedGrad(lopt_step(), 4, steps_per_jit=4),
    GPES(lopt_step(), 4, noise_length=4),
    TruncatedESSharedNoise(lopt_step(), 4),
    DODGE(lopt_step(), 4),
    FullES(lopt_step(trunc_sched=NeverEndingTruncationSchedule()), LENGTH),
    FullGrad(lopt_step(trunc_sched=NeverEndingTruncationSchedule()), LENGTH),
    *map(system_example, SYSTEM_TABLES),
]

NO_WHOLE_NUMBER = [True, 2.5, 2.0, math.nan, -1, "2"]
NO_NUMBER = [True, math.nan, math.inf, "0.1"]


def impossible_values() -> list[Any]:
    """Every numeric field of every configured thing with every value that such a field cannot have."""
    cases = []
    for configured in CONFIGURED:
        for name, hint in typing.get_type_hints(type(configured)).items():
            kinds = {hint, *typing.get_args(hint)}
            bad = NO_WHOLE_NUMBER if int in kinds else NO_NUMBER if float in kinds else []
            label = f"{type(configured).__name__}-{name}"
            cases += [pytest.param(configured, name, value, id=f"{label}-{value!r}") for value in bad]
    return cases


@pytest.mark.parametrize(("configured", "field", "value"), impossible_values())
def test_a_number_of_the_wrong_kind_is_rejected_by_name(configured: Any, field: str, value: Any) -> None:
    message = re.escape(f"{type(configured).__name__}({field}={value!r}): {field} must")
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(configured, **{field: value})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ConstantTruncationSchedule(0), "total_length must be at least 1"),
        (lambda: ConstantTruncationSchedule(50.0), "of type int, so write 50"),
        (lambda: LogUniformLengthSchedule(0, 5), "min_length must be at least 1"),
        (lambda: LogUniformLengthSchedule(2, 1e3), "of type int, so write 1000"),
        (lambda: LogUniformLengthSchedule(9, 5), "max_length must be at least min_length"),
        (lambda: ScheduledTruncationSchedule(100), "schedule must be a function"),
        (
            lambda: ScheduledTruncationSchedule(optax.constant_schedule(1), max_steps=0),
            "max_steps must be at",
        ),
        (
            lambda: ScheduledTruncationSchedule(optax.constant_schedule(1), std=-1.0),
            "std must not be negative",
        ),
        (lambda: QuadraticTask(0), "dim must be at least 1"),
        (lambda: NoisyMeanQuadraticTask(noise_stdev=-1.0), "noise_stdev must not be negative"),
        (lambda: NoisyQuadraticFamily(cov=-1.0), "cov must not be negative"),
        (lambda: ImageMLP("Digit", 8, (4,)), "choose one of 'Digits', 'FashionMnist', 'Mnist'"),
        (lambda: ImageMLP("Digits", 8, (4, 0)), "hidden_sizes must be a tuple of widths"),
        (lambda: ImageMLP("Digits", 8, [4]), "hidden_sizes must be a tuple"),
        (lambda: ImageMLP("Digits", 8, (4,), batch_size=0), "batch_size must be at least 1"),
        (lambda: Split(tuple, 0), "batch_size must be at least 1"),
        (lambda: Split(tuple, 2.5), "batch_size must be a whole number"),
        (lambda: SGD(-0.1), "learning_rate must not be negative"),
        (lambda: SGDM(momentum=1.0), r"momentum must be in \[0, 1\)"),
        (lambda: Adam(beta1=1.0), r"beta1 must be in \[0, 1\)"),
        (lambda: Adam(epsilon=-1e-8), "epsilon must not be negative"),
        (lambda: AdamW(b2=-0.1), r"b2 must be in \[0, 1\)"),
        (lambda: AdamW(weight_decay=-0.1), "weight_decay must not be negative"),
        (lambda: RMSProp(decay=1.5), r"decay must be in \[0, 1\)"),
        (lambda: NAdamW(l2_weight_decay=-1.0), "l2_weight_decay must not be negative"),
        (lambda: GradientClipOptimizer(SGD(), 0.0), "grad_clip must be positive"),
        (lambda: LearnableSGD(0.0), "initial_lr must be positive, theta holds its logarithm"),
        (lambda: LearnableSGDM(initial_momentum=1.0), r"initial_momentum must be in \[0, 1\)"),
        (lambda: LearnableAdam(initial_epsilon=0.0), "initial_epsilon must be positive"),
        (lambda: MLPLOpt(hidden_layers=0), "hidden_layers must be at least 1"),
        (lambda: MLPLOpt(step_mult=0.0), "step_mult must be positive"),
        (lambda: lopt_step(num_tasks=0), "num_tasks must be at least 1"),
        (lambda: lopt_step(meta_loss_split="training"), "choose one of None, 'same_data', 'train'"),
        (lambda: lopt_step(outer_data_split="all"), "choose one of 'train', 'inner_valid'"),
        (lambda: VectorizedTruncatedStep(InfluenceBalancing(), 0), "num_tasks must be at least 1"),
        (lambda: SimpleVecLOptTruncatedStep(Position(), LearnableSGD(), 0), "num_tasks must be at least 1"),
        (lambda: SimpleVecLOptTruncatedStep(Position(), LearnableSGD(), 1, 0), "unroll_length must be at"),
    ],
)
def test_an_impossible_value_is_rejected_by_name(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=rf"^\w+\(.*=.*\): .*{message}"):
        make()


class Unhashable(Position):
    __hash__ = None


class UnhashableSystem(InfluenceBalancing):
    __hash__ = None


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: lopt_step(trunc_sched="constant"),
            r"trunc_sched='constant'\): .* Constant\w+\(100\)",
        ),
        (lambda: lopt_step(trunc_sched=10), r"trunc_sched=10\): it must be an instance of Trunc"),
        (
            lambda: lopt_step(task_family=Position()),
            "instance of TaskFamily; single_task_to_family makes one",
        ),
        (
            lambda: lopt_step(task_family=FixedDimQuadraticFamily),
            "task_family=the class FixedDimQuadraticFamily",
        ),
        (lambda: lopt_step(learned_opt=SGD()), "instance of LearnedOptimizer; learned_optimizer_from_opt"),
        (lambda: SimpleLOptTruncatedStep(Position(), SGD()), "instance of LearnedOptimizer"),
        (
            lambda: SimpleLOptTruncatedStep(Unhashable(), LearnableSGD()),
            "it must be hashable.*frozen dataclass",
        ),
        (lambda: VectorizedTruncatedStep(InfluenceBalancing, 2), "truncated_step=the class Influence"),
        (
            lambda: VectorizedTruncatedStep(UnhashableSystem(), 2),
            "truncated_step=of type UnhashableSystem.*it must be hashable",
        ),
        (lambda: single_task_to_family(QuadraticTask), "task=the class QuadraticTask"),
        (lambda: single_task_to_family(QuadraticTask(), eval_task=3), "eval_task=3"),
        (lambda: single_task_to_family(Unhashable()), "task=of type Unhashable"),
        (
            lambda: GradientClipOptimizer(optax.sgd(0.1)),
            "it must be an instance of Optimizer; OptaxOptimizer",
        ),
        (lambda: learned_optimizer_from_opt(optax.sgd(0.1)), r"FixedOptimizer\(opt=.*OptaxOptimizer"),
        (lambda: FixedOptimizer(SGD), "opt=the class SGD"),
        (lambda: OptaxOptimizer(optax.adam), "as optax.adam"),
        (lambda: OptaxOptimizer(SGD()), "needs no wrapping"),
    ],
)
def test_a_part_of_the_wrong_type_is_rejected_with_what_to_give_instead(
    make: Callable[[], Any], message: str
) -> None:
    with pytest.raises(TypeError, match=message):
        make()


def test_numbers_that_jax_computes_are_let_through() -> None:
    def loss(rate: jax.Array) -> jax.Array:
        optimizer = GradientClipOptimizer(Adam(rate, beta1=1 - rate), grad_clip=rate)
        state = optimizer.init(jnp.ones(2))
        return jnp.sum(optimizer.get_params(optimizer.update(state, jnp.ones(2))))

    assert jnp.isfinite(jax.jit(jax.grad(loss))(0.1))
