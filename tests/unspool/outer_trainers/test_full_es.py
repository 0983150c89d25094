"""Objectives of whole episodes, against closed forms for losses that are linear in theta."""

from typing import Any

import jax
import jax.numpy as jnp
import pytest

from tests.unspool.outer_trainers.systems import LossOfStep
from unspool.outer_trainers.full_es import FullES
from unspool.outer_trainers.gradient_estimator import GradientEstimatorOut, OuterState, WorkerWeights
from unspool.outer_trainers.truncated_step import VectorizedTruncatedStep
from unspool.outer_trainers.truncation_schedule import ConstantTruncationSchedule

WEIGHTS = WorkerWeights({"a": jnp.float32(0.0)}, None, OuterState(jnp.int32(0)))
SLOPES = (3.0, -2.0, 5.0, 1.0)


def sloped(step: jax.Array, a: jax.Array) -> jax.Array:
    """A loss with the slope of its step, and 2 at zero."""
    return 2.0 + jnp.array(SLOPES)[step - 1] * a


STEP = VectorizedTruncatedStep(LossOfStep(sloped), 2)


def estimate(length: int = len(SLOPES), **options: Any) -> GradientEstimatorOut:
    """With noise of plus or minus `std`, so that the estimate is exact."""
    estimator = FullES(
        STEP, ConstantTruncationSchedule(length), std=0.1, perturbation="rademacher", **options
    )
    state = estimator.init_worker_state(WEIGHTS, jax.random.PRNGKey(0))
    return estimator.compute_gradient_estimate(WEIGHTS, jax.random.PRNGKey(1), state)[0]


@pytest.mark.parametrize(
    ("loss_type", "gradient"),
    [
        ("avg", sum(SLOPES) / 4),
        ("last", SLOPES[-1]),
        # One side reaches 2 - 0.1 * 5, the other one 2 - 0.1 * 2.
        ("min", (min(SLOPES) + max(SLOPES)) / 2),
    ],
)
def test_each_objective_has_its_gradient(loss_type: Any, gradient: float) -> None:
    out = estimate(loss_type=loss_type, steps_per_jit=1)
    assert float(out.grad["a"]) == pytest.approx(gradient, rel=1e-4)
    assert float(out.weight) == 2
    assert int(out.inner_steps) == 2 * 2 * 4


def test_the_length_is_rounded_down_to_whole_blocks() -> None:
    out = estimate(length=3, steps_per_jit=2)
    assert int(out.inner_steps) == 2 * 2 * 2
    assert float(out.grad["a"]) == pytest.approx((SLOPES[0] + SLOPES[1]) / 2, rel=1e-4)


def test_nothing_persists_between_episodes() -> None:
    estimator = FullES(STEP, ConstantTruncationSchedule(4))
    state = estimator.init_worker_state(WEIGHTS, jax.random.PRNGKey(0))
    assert jax.tree.leaves(state) == []
