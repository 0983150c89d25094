"""Directional derivatives, against exact gradients."""

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from tests.unspool.outer_trainers.systems import DECAY, LinearSystem, two_estimates
from unspool.outer_trainers.dodge import DODGE
from unspool.outer_trainers.gradient_estimator import OuterState, WorkerWeights
from unspool.outer_trainers.truncated_step import VectorizedTruncatedStep

LENGTH, WINDOW = 8, 4
STEP = VectorizedTruncatedStep(LinearSystem(LENGTH), 2)
WEIGHTS = WorkerWeights({"theta": jnp.array([0.3, -0.1])}, None, OuterState(jnp.int32(0)))
ALL_DIRECTIONS: dict[str, Any] = {"pairs_per_task": 2, "orthogonal": True, "perturbation": "sphere"}


def estimates(**options: Any) -> list[Any]:
    """The two estimates of an episode of eight steps."""
    return two_estimates(DODGE(STEP, WINDOW, **options), WEIGHTS)


def exact_gradients() -> np.ndarray:
    """Of each window's mean loss, through all of its episode."""
    slopes = [
        sum(DECAY ** (t - i) * np.array([1.0, i]) for i in range(1, t + 1)) for t in range(1, LENGTH + 1)
    ]
    return np.reshape(slopes, (LENGTH // WINDOW, WINDOW, 2)).mean(axis=1) / STEP.episodes(None).loss_fraction


def test_as_many_orthogonal_directions_as_dimensions_give_the_exact_gradient() -> None:
    found = [out.grad["theta"] for out in estimates(**ALL_DIRECTIONS)]
    np.testing.assert_allclose(found, exact_gradients(), rtol=1e-4)


def test_the_std_cancels_out() -> None:
    small, large = ([out.grad["theta"] for out in estimates(std=std)] for std in (0.01, 4.0))
    np.testing.assert_allclose(small, large, rtol=1e-4)


def test_a_bound_on_the_worse_side_is_rejected() -> None:
    with pytest.raises(ValueError, match="derivatives have no worse side; choose 'mask' or 'fail'"):
        DODGE(STEP, WINDOW, divergence="clip", clip_loss_diff=1.0)
