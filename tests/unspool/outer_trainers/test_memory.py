"""What an estimate's memory grows with, as its compiled program plans it."""

from typing import Any

import jax
import jax.numpy as jnp
import pytest

from tests.unspool.outer_trainers.systems import LinearSystem
from unspool.outer_trainers.full_es import FullES
from unspool.outer_trainers.full_grad import FullGrad
from unspool.outer_trainers.gradient_estimator import GradientEstimator, OuterState, WorkerWeights
from unspool.outer_trainers.truncated_step import VectorizedTruncatedStep
from unspool.outer_trainers.truncation_schedule import ConstantTruncationSchedule

pytestmark = pytest.mark.optimized

WEIGHTS = WorkerWeights({"theta": jnp.array([0.3, -0.1])}, None, OuterState(jnp.int32(0)))


def temporary_bytes(estimator: GradientEstimator) -> int:
    def estimate(key: jax.Array) -> Any:
        state = estimator.init_worker_state(WEIGHTS, key)
        return estimator.estimate(WEIGHTS, key, state, estimator.get_data(), False)[0].grad

    compiled = jax.jit(estimate).lower(jax.random.PRNGKey(0)).compile()
    analysis = compiled.memory_analysis()
    assert analysis is not None
    return int(analysis.temp_size_in_bytes)


def of_length(estimator: Any, length: int) -> int:
    step = VectorizedTruncatedStep(LinearSystem(length), 64)
    return temporary_bytes(estimator(step, ConstantTruncationSchedule(length)))


def test_full_es_needs_no_more_memory_for_a_longer_episode() -> None:
    assert of_length(FullES, 10_000) == of_length(FullES, 100)


def test_full_grad_needs_memory_like_the_square_root_of_the_episodes_length() -> None:
    growth = of_length(FullGrad, 10_000) / of_length(FullGrad, 100)
    assert growth < 20  # a hundred times the length; tenfold, but for what does not grow
