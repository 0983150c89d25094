"""Truncated backpropagation, window by window, against derivatives in closed form."""

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from tests.unspool.outer_trainers.systems import DECAY, LinearSystem, two_estimates
from unspool.outer_trainers.gradient_estimator import OuterState, WorkerWeights
from unspool.outer_trainers.truncated_grad import TruncatedGrad
from unspool.outer_trainers.truncated_step import VectorizedTruncatedStep

LENGTH, WINDOW = 5, 4
THETA = np.array([0.3, -0.1])
WEIGHTS = WorkerWeights({"theta": jnp.asarray(THETA)}, None, OuterState(jnp.int32(0)))
STEP = VectorizedTruncatedStep(LinearSystem(LENGTH), 2)


@pytest.fixture(scope="module")
def outs() -> list[Any]:
    """Two estimates in a row: steps 1 to 4, then step 5, the reset, and steps 1 and 2."""
    return two_estimates(TruncatedGrad(STEP, WINDOW), WEIGHTS)


def slopes(steps: list[int]) -> np.ndarray:
    """Derivatives of the losses at these steps, with a constant state before the first."""
    found, slope = [], np.zeros(2)
    for step in steps:
        slope = DECAY * slope + np.array([1.0, step])
        found.append(slope)
    return np.array(found)


def test_a_window_has_the_gradient_of_its_mean_loss(outs: list[Any]) -> None:
    np.testing.assert_allclose(outs[0].grad["theta"], slopes([1, 2, 3, 4]).mean(axis=0), rtol=1e-5)
    assert float(outs[0].mean_loss) == pytest.approx(slopes([1, 2, 3, 4]).mean(axis=0) @ THETA, rel=1e-5)


def test_earlier_windows_and_the_reset_have_no_derivative(outs: list[Any]) -> None:
    expected = np.concatenate([slopes([5]), slopes([1, 2])]).mean(axis=0)
    np.testing.assert_allclose(outs[1].grad["theta"], expected, rtol=1e-5)


def test_the_step_that_only_resets_is_not_an_inner_step(outs: list[Any]) -> None:
    assert [int(out.inner_steps) for out in outs] == [2 * 4, 2 * 3]
    assert [float(out.weight) for out in outs] == [2, 2]
    assert [np.asarray(out.unroll_info.is_done).sum(axis=0).tolist() for out in outs] == [[0, 0], [1, 1]]
