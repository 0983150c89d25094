"""Exact gradients of whole episodes, against closed forms."""

from typing import Any

import jax
import jax.numpy as jnp
import pytest

from tests.unspool.outer_trainers.systems import LossOfStep
from unspool.outer_trainers.full_grad import FullGrad
from unspool.outer_trainers.gradient_estimator import GradientEstimatorOut, OuterState, WorkerWeights
from unspool.outer_trainers.truncated_step import VectorizedTruncatedStep
from unspool.outer_trainers.truncation_schedule import ConstantTruncationSchedule

WEIGHTS = WorkerWeights({"a": jnp.float32(0.5)}, None, OuterState(jnp.int32(0)))


def power(step: jax.Array, a: jax.Array) -> jax.Array:
    """`step a^2`, with the derivative `2 step a`."""
    return step.astype(jnp.float32) * a**2


STEP = VectorizedTruncatedStep(LossOfStep(power), 2)


def estimate(length: int, **options: Any) -> GradientEstimatorOut:
    estimator = FullGrad(STEP, ConstantTruncationSchedule(length), **options)
    state = estimator.init_worker_state(WEIGHTS, jax.random.PRNGKey(0))
    return estimator.compute_gradient_estimate(WEIGHTS, jax.random.PRNGKey(1), state)[0]


@pytest.mark.parametrize(
    ("length", "options", "gradient"),
    [
        (7, {}, 4.0),  # the mean of 1 to 7
        (7, {"loss_type": "last"}, 7.0),
        (7, {"max_length": 3}, 2.0),
    ],
)
def test_the_gradient_is_that_of_the_objective(length: int, options: dict[str, Any], gradient: float) -> None:
    out = estimate(length, **options)
    assert float(out.grad["a"]) == pytest.approx(gradient, rel=1e-6)
    assert float(out.mean_loss) == pytest.approx(gradient / 4, rel=1e-6)
    assert int(out.inner_steps) == 2 * min(length, options.get("max_length", length))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"loss_type": "min"}, r"FullGrad\(loss_type='min'\): choose one of 'avg', 'last'"),
        ({"max_length": 0}, r"FullGrad\(max_length=0\): max_length must be at least 1"),
        ({"divergence": "clip"}, "choose one of 'mask', 'fail'"),
    ],
)
@pytest.mark.unchecked
def test_options_out_of_range_are_rejected(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FullGrad(STEP, ConstantTruncationSchedule(4), **options)
