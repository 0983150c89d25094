"""The library computes under options that users set: the library itself must not be what trips them."""

from contextlib import AbstractContextManager
from typing import Any

import jax
import pytest

from unspool.experiment import Experiment

pytestmark = pytest.mark.promoting  # outer optimizers are optax's

QUADRATICS = {"task_family": {"type": "FixedDimQuadraticFamily", "dim": 3}}
SCHEDULE = {"type": "ConstantTruncationSchedule", "total_length": 4}
ADAM = {"type": "adam", "learning_rate": 0.01, "clip": 3.0, "clip_norm": 1.0}
ESTIMATORS: dict[str, dict[str, Any]] = {
    "FullES": {},
    "TruncatedES": {"unroll_length": 2, "steps_per_jit": 2},
    "TruncatedPES": {"trunc_length": 2, "steps_per_jit": 2},
    "GPES": {"trunc_length": 2},
    "NRES": {"unroll_length": 2},
    "DODGE": {"trunc_length": 2},
    "TruncatedGrad": {"unroll_length": 2, "steps_per_jit": 2},
    "FullGrad": {},
}


def check(estimator: dict[str, Any], option: AbstractContextManager[Any], **more: Any) -> None:
    """Trace everything that estimates and the initial theta compute, with shapes in place of numbers."""
    tables = {"seed": 1, "outer_steps": 1, "aggregation": {"lanes": 1}, "outer_optimizer": ADAM}
    with option:
        Experiment.from_tables(tables | {"estimators": [estimator]} | more).check()


def traced(estimator: dict[str, Any], **more: Any) -> None:
    check(estimator, jax.numpy_rank_promotion("raise"), **more)


@pytest.mark.parametrize("learned_optimizer", ["LearnableAdam", "MLPLOpt"])
@pytest.mark.parametrize("name", ESTIMATORS)
def test_no_estimator_promotes_ranks(name: str, learned_optimizer: str) -> None:
    estimator = {"type": name, "num_tasks": 2, "truncation_schedule": SCHEDULE, **QUADRATICS}
    traced(estimator | ESTIMATORS[name], learned_optimizer={"type": learned_optimizer})


@pytest.mark.parametrize("name", ESTIMATORS)
def test_every_estimator_can_be_traced_with_64_bit_types(name: str) -> None:
    estimator = {"type": name, "num_tasks": 2, "truncation_schedule": SCHEDULE, **QUADRATICS}
    learned_optimizer = {"type": "LearnableAdam"}
    check(estimator | ESTIMATORS[name], jax.enable_x64(True), learned_optimizer=learned_optimizer)


@pytest.mark.parametrize("system", ["InfluenceBalancing", "LearningRateRamp", "LorenzFit", "PendulumSwingUp"])
@pytest.mark.parametrize("name", ["TruncatedPES", "TruncatedGrad"])
def test_no_system_promotes_ranks(name: str, system: str) -> None:
    traced({"type": name, "num_tasks": 2, "truncated_step": {"type": system}, **ESTIMATORS[name]})


@pytest.mark.parametrize(
    "options",
    [
        {"pairs_per_task": 2},
        {"death_probability": 0.1},
        {"perturbation": "sphere", "pairs_per_task": 2, "orthogonal": True},
        {"objective": "telescoped"},
        {"objective": "last_recompute"},
        {"weight_by": "episode"},
        {"divergence": "clip", "clip_loss_diff": 1.0},
    ],
    ids=str,
)
def test_no_option_promotes_ranks(options: dict[str, Any]) -> None:
    estimator = {"type": "TruncatedPES", "num_tasks": 2, "truncation_schedule": SCHEDULE, **QUADRATICS}
    traced(estimator | ESTIMATORS["TruncatedPES"] | options, learned_optimizer={"type": "MLPLOpt"})
