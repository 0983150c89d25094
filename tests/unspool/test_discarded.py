"""Steps whose results are discarded have zero derivatives, whatever their own derivatives are."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from unspool.discarded import not_differentiated


def guarded(x: jax.Array, discarded: jax.Array) -> jax.Array:
    """The root of x, or 7 where it is discarded."""
    return jnp.where(discarded, 7.0, jnp.sqrt(not_differentiated(discarded, x)))


def unguarded(x: jax.Array, discarded: jax.Array) -> jax.Array:
    return jnp.where(discarded, 7.0, jnp.sqrt(x))


@pytest.mark.parametrize("derivative", [jax.grad, jax.jacfwd])
def test_a_discarded_infinite_derivative_is_zero(derivative: Callable[..., Any]) -> None:
    at_zero, discarded = jnp.float32(0.0), jnp.bool_(True)
    assert derivative(guarded)(at_zero, discarded) == 0.0
    assert guarded(at_zero, discarded) == 7.0


def test_without_the_guard_the_derivative_is_nan() -> None:
    assert np.isnan(jax.grad(unguarded)(jnp.float32(0.0), jnp.bool_(True)))


@pytest.mark.parametrize("derivative", [jax.grad, jax.jacfwd])
def test_a_kept_step_has_its_own_derivative(derivative: Callable[..., Any]) -> None:
    assert derivative(guarded)(jnp.float32(4.0), jnp.bool_(False)) == 0.25


def test_members_of_a_batch_are_guarded_one_by_one() -> None:
    x, discarded = jnp.array([0.0, 4.0, 9.0]), jnp.array([True, False, True])
    np.testing.assert_allclose(jax.vmap(jax.grad(guarded))(x, discarded), [0.0, 0.25, 0.0])


def test_values_of_every_type_pass_unchanged() -> None:
    inputs = {"x": jnp.ones(2), "count": jnp.arange(2), "key": jax.random.key(0)}
    passed = not_differentiated(jnp.bool_(True), inputs)
    assert jax.tree.structure(passed) == jax.tree.structure(inputs)
    np.testing.assert_array_equal(passed["x"], inputs["x"])
    np.testing.assert_array_equal(passed["count"], inputs["count"])
    assert passed["key"] == inputs["key"]
