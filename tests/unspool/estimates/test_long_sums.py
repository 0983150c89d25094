"""Sums over long episodes keep the precision of their terms."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.unspool.outer_trainers.systems import LossOfStep
from unspool.estimates.long_sums import RunningSum, scan_in_blocks, sum_over_steps
from unspool.outer_trainers.full_es import FullES
from unspool.outer_trainers.full_grad import FullGrad
from unspool.outer_trainers.gradient_estimator import OuterState, WorkerWeights
from unspool.outer_trainers.truncated_es import TruncatedES
from unspool.outer_trainers.truncated_grad import TruncatedGrad
from unspool.outer_trainers.truncated_step import VectorizedTruncatedStep
from unspool.outer_trainers.truncation_schedule import ConstantTruncationSchedule

WEIGHTS = WorkerWeights({"a": jnp.float32(0.0)}, None, OuterState(jnp.int32(0)))
LENGTH = 100_000


def two_and_a(step: jax.Array, a: jax.Array) -> jax.Array:
    """The loss of every step: the gradient is 1."""
    return 2.0 + a


STEP = VectorizedTruncatedStep(LossOfStep(two_and_a), 2)
NOISE: dict[str, Any] = {"std": 0.01, "perturbation": "rademacher"}
ESTIMATORS = {
    "FullES": lambda: FullES(STEP, ConstantTruncationSchedule(LENGTH), **NOISE),
    "FullGrad": lambda: FullGrad(STEP, ConstantTruncationSchedule(LENGTH)),
    "TruncatedGrad": lambda: TruncatedGrad(STEP, LENGTH),
    "TruncatedES": lambda: TruncatedES(STEP, LENGTH, **NOISE),
}


@pytest.mark.parametrize("name", ESTIMATORS)
def test_a_hundred_thousand_equal_losses_have_the_gradient_of_one(name: str) -> None:
    estimator = ESTIMATORS[name]()
    state = estimator.init_worker_state(WEIGHTS, jax.random.PRNGKey(0))
    out, _ = estimator.compute_gradient_estimate(WEIGHTS, jax.random.PRNGKey(1), state)
    assert float(out.grad["a"]) == pytest.approx(1, abs=1e-3)
    assert float(out.mean_loss) == pytest.approx(2, abs=1e-5)


def test_a_running_sum_is_exact_to_two_roundings_and_differentiable() -> None:
    terms = jax.random.uniform(jax.random.PRNGKey(0), (200_000,))

    def total(terms: jax.Array) -> jax.Array:
        start = RunningSum.zero_like(jnp.float32(0))
        end, _ = jax.lax.scan(lambda running, term: (running.plus(term), None), start, terms)
        return jnp.asarray(end.value)

    exact = np.asarray(terms, np.float64).sum()
    assert abs(float(jax.jit(total)(terms)) - exact) < 2 * np.spacing(np.float32(exact))
    np.testing.assert_array_equal(jax.jit(jax.grad(total))(terms[:300]), np.ones(300))


@pytest.mark.parametrize("count", [1, 63, 64, 65, 129, 1001, 100_000])
def test_a_sum_over_steps_is_that_of_all_of_them(count: int) -> None:
    terms = jax.random.uniform(jax.random.PRNGKey(count), (count, 3))
    exact = np.asarray(terms, np.float64).sum(axis=0)
    np.testing.assert_allclose(jax.jit(sum_over_steps)(terms), exact, rtol=1e-6)


@pytest.mark.parametrize("count", [1, 511, 512, 700])
def test_a_scan_in_blocks_is_a_scan(count: int) -> None:
    def step(total: jax.Array, x: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        return total + x, (total, 2 * x)

    xs = jnp.arange(count)
    expected = jax.lax.scan(step, jnp.int32(0), xs)
    jax.tree.map(np.testing.assert_array_equal, scan_in_blocks(step, jnp.int32(0), xs, count), expected)
