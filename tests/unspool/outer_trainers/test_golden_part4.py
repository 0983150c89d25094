"""The tutorial's gradients, computed by an independent implementation (tests/data/golden/README.md)."""

import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from unspool.learned_optimizers.base import LearnableAdam
from unspool.outer_trainers.full_es import FullES
from unspool.outer_trainers.full_grad import FullGrad
from unspool.outer_trainers.gradient_learner import OuterState, WorkerWeights
from unspool.outer_trainers.lopt_truncated_step import VectorizedLOptTruncatedStep
from unspool.outer_trainers.truncated_es import TruncatedES
from unspool.outer_trainers.truncated_grad import TruncatedGrad
from unspool.outer_trainers.truncated_pes import TruncatedPES
from unspool.outer_trainers.truncation_schedule import (
    ConstantTruncationSchedule,
    NeverEndingTruncationSchedule,
)
from unspool.tasks.quadratics import FixedDimQuadraticFamily

GOLDEN = json.loads((Path(__file__).parents[2] / "data/golden/part4.json").read_text())["calls"]

pytestmark = [pytest.mark.optimized, pytest.mark.usefixtures("golden_prng")]


def step(schedule: Any, **options: Any) -> VectorizedLOptTruncatedStep:
    return VectorizedLOptTruncatedStep(
        FixedDimQuadraticFamily(10), LearnableAdam(), schedule, num_tasks=3, **options
    )


def first_call(estimator: Any, seed: int) -> Any:
    key = jax.random.PRNGKey(seed)
    theta = estimator.truncated_step.outer_init(key)
    weights = WorkerWeights(theta=theta, theta_model_state=None, outer_state=OuterState(0))
    state = estimator.init_worker_state(weights, key=key)
    return state, estimator.compute_gradient_estimate(weights, key=key, state=state, with_summary=False)[0]


COMPARED = {
    "FullES",
    "FullES_stacked",
    "FullGrad",
    "TruncatedES_call1",
    "TruncatedGrad_call1",
    "TruncatedPES_call1",
    "TruncatedPES_inner_step_at_init",
}


def test_every_golden_call_is_compared() -> None:
    assert set(GOLDEN) == COMPARED


def assert_golden(out: Any, name: str) -> None:
    # 2 %: the division by 2 std^2 magnifies float32 rounding of the losses.
    np.testing.assert_allclose(out.mean_loss, GOLDEN[name]["mean_loss"], rtol=1e-5)
    for leaf, value in GOLDEN[name]["grad"].items():
        np.testing.assert_allclose(out.grad[leaf], value, rtol=2e-2, err_msg=leaf)


@pytest.mark.parametrize("stacked", [False, True])
def test_full_es(stacked: bool) -> None:
    estimator = FullES(
        step(NeverEndingTruncationSchedule()),
        truncation_schedule=ConstantTruncationSchedule(10),
        stack_antithetic_samples=stacked,
    )
    assert_golden(first_call(estimator, seed=0)[1], "FullES_stacked" if stacked else "FullES")


def test_truncated_pes() -> None:
    estimator = TruncatedPES(
        step(ConstantTruncationSchedule(10), random_initial_iteration_offset=10), trunc_length=10
    )
    state, out = first_call(estimator, seed=1)
    assert_golden(out, "TruncatedPES_call1")
    assert state.pos_state.inner_step.tolist() == GOLDEN["TruncatedPES_inner_step_at_init"]
    assert out.unroll_state.pos_state.inner_step.tolist() == GOLDEN["TruncatedPES_call1"]["inner_step_after"]


def test_truncated_es() -> None:
    estimator = TruncatedES(
        step(ConstantTruncationSchedule(10), random_initial_iteration_offset=10), unroll_length=10
    )
    _, out = first_call(estimator, seed=1)
    assert_golden(out, "TruncatedES_call1")
    assert out.unroll_state.inner_step.tolist() == GOLDEN["TruncatedES_call1"]["inner_step_after"]


@pytest.mark.promoting
def test_truncated_grad() -> None:
    estimator = TruncatedGrad(
        step(ConstantTruncationSchedule(10), random_initial_iteration_offset=10),
        unroll_length=5,
        steps_per_jit=5,
    )
    _, out = first_call(estimator, seed=1)
    assert_golden(out, "TruncatedGrad_call1")
    assert out.unroll_state.inner_step.tolist() == GOLDEN["TruncatedGrad_call1"]["inner_step_after"]


@pytest.mark.promoting
def test_full_grad() -> None:
    estimator = FullGrad(step(NeverEndingTruncationSchedule()), ConstantTruncationSchedule(10))
    _, out = first_call(estimator, seed=0)
    assert_golden(out, "FullGrad")
    # Of the other leaves, sums of terms that nearly cancel, float32 leaves three digits.
    np.testing.assert_allclose(out.grad["log_lr"], GOLDEN["FullGrad"]["grad"]["log_lr"], rtol=1e-5)
