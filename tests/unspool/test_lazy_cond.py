"""A conditional under vmap computes its branch only if some member needs it."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from unspool.lazy_cond import lazy_cond


@pytest.fixture
def counted() -> tuple[Callable[[jax.Array], jax.Array], list[int]]:
    """A function that records each of its executions."""
    executions: list[int] = []

    def make(x: jax.Array) -> jax.Array:
        jax.debug.callback(lambda: executions.append(1))
        return 10 * x

    return make, executions


def run(function: Callable[..., Any], *args: Any) -> Any:
    result = jax.block_until_ready(jax.jit(function)(*args))
    jax.effects_barrier()
    return result


@pytest.mark.parametrize(("pred", "expected"), [(True, 30.0), (False, 3.0)])
def test_one_member_gets_the_branch_of_its_predicate(pred: bool, expected: float) -> None:
    assert run(lambda p, x: lazy_cond(p, lambda: 10 * x, x), jnp.bool_(pred), jnp.float32(3)) == expected


def test_each_member_of_a_batch_gets_the_branch_of_its_own_predicate() -> None:
    preds, xs = jnp.array([[True, False], [False, False]]), jnp.arange(4.0).reshape(2, 2)
    nested = jax.vmap(jax.vmap(lambda pred, x: lazy_cond(pred, lambda: 10 * x, x)))
    np.testing.assert_array_equal(run(nested, preds, xs), np.where(preds, 10 * xs, xs))


@pytest.mark.parametrize(("preds", "needed"), [([False, False, False], False), ([False, True, False], True)])
def test_a_branch_that_no_member_of_the_batch_needs_is_not_run(
    counted: tuple[Callable[..., Any], list[int]], preds: list[bool], needed: bool
) -> None:
    make, executions = counted
    run(jax.vmap(lambda pred, x: lazy_cond(pred, lambda: make(x), x)), jnp.array(preds), jnp.arange(3.0))
    assert bool(executions) is needed


def test_the_branch_is_cast_to_the_types_of_the_other_value() -> None:
    otherwise = {"count": jnp.int32(0), "x": jnp.float32(0)}
    made = lazy_cond(jnp.bool_(True), lambda: {"count": jnp.int8(7), "x": 1}, otherwise)
    assert jax.tree.map(lambda leaf: (float(leaf), str(leaf.dtype)), made) == {
        "count": (7.0, "int32"),
        "x": (1.0, "float32"),
    }


def test_derivatives_are_those_of_the_chosen_branch() -> None:
    def value(x: jax.Array) -> jax.Array:
        return lazy_cond(x > 1, lambda: x**3, x)

    np.testing.assert_allclose(jax.vmap(jax.grad(value))(jnp.array([0.5, 2.0])), [1.0, 12.0])
