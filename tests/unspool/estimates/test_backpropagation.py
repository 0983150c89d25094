"""Gradients per task: their mean, tasks that diverge, and steps whose results are discarded."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from unspool.estimates.backpropagation import (
    DivergenceOfGradients,
    FloatingLeaves,
    MeanGradient,
    UnrollLosses,
    mean_gradient,
    resets_harmless,
)
from unspool.outer_trainers.truncated_step import TruncatedUnrollOut

THETA = {"a": jnp.float32(3.0), "b": jnp.array([1.0, 2.0])}


def gradient(
    factors: list[float], counts: list[bool], divergence: DivergenceOfGradients = "mask"
) -> MeanGradient:
    """Return the mean gradient of the losses `factor (a^2 + b . b)`."""

    def losses(thetas: Any) -> UnrollLosses:
        loss = jnp.array(factors) * (thetas["a"] ** 2 + jnp.sum(thetas["b"] ** 2, axis=1))
        return UnrollLosses(loss, jnp.array(counts), "aux")

    return mean_gradient(THETA, len(factors), losses, divergence)


def test_the_gradient_is_the_mean_over_tasks_that_have_a_loss() -> None:
    mean = gradient([1.0, 100.0, 3.0], [True, False, True])
    assert (float(mean.grad["a"]), mean.grad["b"].tolist()) == (12.0, [4.0, 8.0])
    assert (float(mean.loss), mean.counts.tolist(), mean.aux) == (28.0, [True, False, True], "aux")


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_task_that_diverges_is_left_out_and_counted(bad: float) -> None:
    mean = gradient([1.0, bad, 3.0], [True, True, True])
    assert (float(mean.grad["a"]), float(mean.loss)) == (12.0, 28.0)
    assert mean.diverged.tolist() == [False, True, False]


def test_an_infinite_derivative_alone_makes_a_task_diverge() -> None:
    def losses(thetas: Any) -> UnrollLosses:
        return UnrollLosses(jnp.sqrt(thetas["a"] - jnp.array([3.0, 2.0])), jnp.ones(2, bool), None)

    mean = mean_gradient({"a": THETA["a"]}, 2, losses, "mask")
    assert mean.diverged.tolist() == [True, False]
    assert float(mean.grad["a"]) == 0.5


def test_the_fail_policy_keeps_what_is_not_finite() -> None:
    mean = gradient([1.0, np.nan], [True, True], divergence="fail")
    assert np.isnan(mean.grad["a"])
    assert mean.counts.tolist() == [True, True]


def test_without_any_loss_the_gradient_is_zero() -> None:
    mean = gradient([np.nan, np.nan], [True, False])
    assert (float(mean.grad["a"]), float(mean.loss), mean.grad["b"].tolist()) == (0.0, 0.0, [0.0, 0.0])


def test_floating_leaves_can_be_replaced_without_the_others() -> None:
    tree = {"count": jnp.arange(2), "x": jnp.ones(2), "y": (jnp.zeros(()), jnp.bool_(True))}
    parts = FloatingLeaves(tree)
    assert [leaf.shape for leaf in parts.floating] == [(2,), ()]
    joined = parts.joined([2 * leaf + 1 for leaf in parts.floating])
    expected = {"count": jnp.arange(2), "x": jnp.full(2, 3.0), "y": (jnp.ones(()), jnp.bool_(True))}
    jax.tree.map(np.testing.assert_array_equal, joined, expected)


RESETS = jnp.array([True, False])


def root_or_reset(theta: jax.Array, x: jax.Array) -> tuple[jax.Array, TruncatedUnrollOut]:
    """A step to `theta sqrt(x)`, which the first of two tasks discards for a reset to 5."""
    moved = jnp.where(RESETS, 5.0, theta * jnp.sqrt(x))
    count = jnp.where(RESETS, 0, 1)
    return moved, TruncatedUnrollOut(moved, jnp.zeros(2, bool), (), count, ~RESETS)


def derivatives(x: list[float], step: Any) -> Any:
    """Derivatives of the sum of the next states with respect to theta and the states."""

    def total(theta: jax.Array, x: jax.Array) -> jax.Array:
        return jnp.sum(step(theta, x)[0])

    return jax.grad(total, argnums=(0, 1))(jnp.array([2.0, 2.0]), jnp.array(x))


def test_a_discarded_step_with_an_infinite_derivative_leaves_no_nan() -> None:
    of_theta, of_x = derivatives([0.0, 4.0], resets_harmless(root_or_reset))
    np.testing.assert_allclose(of_theta, [0.0, 2.0])
    np.testing.assert_allclose(of_x, [0.0, 0.5])
    assert np.isnan(derivatives([0.0, 4.0], root_or_reset)[1][0])  # what it protects from


def test_an_infinite_derivative_of_a_step_that_counts_stays() -> None:
    _, of_x = derivatives([1.0, 0.0], resets_harmless(root_or_reset))
    assert not np.isfinite(of_x[1])


def test_values_and_finite_derivatives_do_not_change() -> None:
    theta, x = jnp.array([2.0, 3.0]), jnp.array([1.0, 9.0])
    jax.tree.map(
        np.testing.assert_array_equal, resets_harmless(root_or_reset)(theta, x), root_or_reset(theta, x)
    )
    for one, other in zip(
        derivatives([1.0, 9.0], resets_harmless(root_or_reset)),
        derivatives([1.0, 9.0], root_or_reset),
        strict=True,
    ):
        np.testing.assert_array_equal(one, other)
