"""What becomes of loss differences by the policy of an estimator: infinite ones, large ones, their signs."""

import math
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from unspool.evolution.loss_difference import LossDifference, Policy, Sides, loss_difference

INF = math.inf


def difference(
    pos: list[Any], neg: list[Any], is_done: list[Any] | None = None, **policy: Any
) -> LossDifference:
    """Of losses `[T, N]` (lists of steps)."""
    sides = Sides.of_pair(jnp.asarray(pos, jnp.float32), jnp.asarray(neg, jnp.float32))
    done = jnp.zeros(sides.delta.shape, bool) if is_done is None else jnp.asarray(is_done)
    options = {"divergence": "mask", "clip_loss_diff": None, "sign_delta_loss_scalar": None, **policy}
    return loss_difference(sides, jnp.ones_like(done), done, None, Policy(**options))


def test_a_diverged_task_is_no_loss_of_zero_where_differences_are_clipped() -> None:
    found = difference([[2.0, INF, INF]], [[4.0, 5.0, INF]], divergence="clip", clip_loss_diff=1.0)
    np.testing.assert_array_equal(found.delta, [[-1.0, 1.0, 0.0]])
    assert float(found.mean_loss) == (3.0 + 5.0) / 2
    assert (float(found.weight), found.diverged.tolist()) == (3, [False, True, True])


def test_an_estimate_without_any_finite_loss_weighs_nothing_where_differences_are_clipped() -> None:
    found = difference([[INF]], [[INF]], divergence="clip", clip_loss_diff=1.0)
    assert (float(found.weight), found.delta.tolist()) == (0, [[0]])


def test_losses_whose_difference_overflows_have_diverged() -> None:
    masked = difference([[3e38, 1.0]], [[-3e38, 0.0]])
    assert (float(masked.weight), float(masked.mean_loss), masked.diverged.tolist()) == (
        1,
        0.5,
        [True, False],
    )
    clipped = difference([[3e38]], [[-3e38]], divergence="clip", clip_loss_diff=1.0)
    assert clipped.delta.tolist() == [[1.0]]


@pytest.mark.parametrize("bounds", [{}, {"clip_loss_diff": 1.0}, {"sign_delta_loss_scalar": 0.1}])
@pytest.mark.parametrize(("pos", "neg"), [(INF, 1.0), (1.0, INF), (INF, INF), (math.nan, 1.0)])
def test_no_bound_and_no_sign_makes_an_infinite_difference_finite_under_fail(
    bounds: dict[str, Any], pos: float, neg: float
) -> None:
    found = difference([[pos, 1.0]], [[neg, 1.0]], divergence="fail", **bounds)
    assert np.isnan(found.delta[0, 0])
    assert not np.isfinite(found.mean_loss)


def test_each_episode_in_a_truncation_has_the_sign_of_its_own_sum() -> None:
    """Task 0: an episode ends with the second step, the next with the third; task 1: none ends."""
    delta = [[1.0, 1.0], [-3.0, 1.0], [5.0, -1.0], [0.0, -2.0]]
    done = [[False, False], [True, False], [True, False], [False, False]]
    found = difference(delta, np.zeros_like(delta).tolist(), done, sign_delta_loss_scalar=0.5)
    np.testing.assert_array_equal(found.delta, [[-0.5, -0.5], [-0.5, -0.5], [0.5, -0.5], [0, -0.5]])
