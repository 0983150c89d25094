"""What the estimators estimate, tested at 5 sigma against exact gradients, episode boundaries and all."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.unspool.outer_trainers.systems import LinearSystem
from unspool.outer_trainers.gradient_estimator import GradientEstimator, OuterState, WorkerWeights
from unspool.outer_trainers.truncated_es import TruncatedES
from unspool.outer_trainers.truncated_pes import TruncatedPES
from unspool.outer_trainers.truncated_step import VectorizedTruncatedStep

SAMPLES, SIGMAS = 4096, 5.0
WEIGHTS = WorkerWeights({"theta": jnp.array([0.3, -0.1])}, None, OuterState(jnp.int32(0)))


def windows(estimator: GradientEstimator, num_windows: int) -> np.ndarray:
    """Independent samples `[SAMPLES, num_windows, 2]` of consecutive estimates from an episode's start."""

    def one_sample(key: jax.Array) -> jax.Array:
        init_key, windows_key = jax.random.split(key)

        def window(state: Any, window_key: jax.Array) -> tuple[Any, jax.Array]:
            out, _ = estimator.estimate(WEIGHTS, window_key, state, estimator.get_data(), False)
            return out.unroll_state, out.grad["theta"]

        state = estimator.init_worker_state(WEIGHTS, init_key)
        return jax.lax.scan(window, state, jax.random.split(windows_key, num_windows))[1]

    return np.asarray(jax.jit(jax.vmap(one_sample))(jax.random.split(jax.random.PRNGKey(7), SAMPLES)))


def exact_windows(system: LinearSystem, trunc_length: int, num_windows: int) -> np.ndarray:
    """`[num_windows, 2]`: each truncation's mean valid loss differentiated through all of its episode."""
    gradients, mask = system.exact_gradients(trunc_length * num_windows)
    sums = gradients.reshape(num_windows, trunc_length, 2).sum(axis=1)
    return sums / np.maximum(mask.reshape(num_windows, trunc_length).sum(axis=1), 1)[:, None]


def z_scores(samples: np.ndarray, exact: np.ndarray) -> np.ndarray:
    spread = samples.std(axis=0) / np.sqrt(len(samples))
    return (samples.mean(axis=0) - exact) / np.maximum(spread, 1e-6)


@pytest.mark.parametrize("last_step_only", [False, True])
@pytest.mark.parametrize("done_on_reset", [False, True])
@pytest.mark.parametrize(("length", "trunc_length"), [(7, 5), (3, 7), (4, 1)])
def test_pes_is_unbiased_across_episode_boundaries(
    length: int, trunc_length: int, last_step_only: bool, done_on_reset: bool
) -> None:
    system = LinearSystem(length, last_step_only, done_on_reset)
    num_windows = max(6, 2 * (length + 1) // trunc_length)
    estimator = TruncatedPES(VectorizedTruncatedStep(system, 2), trunc_length, std=0.5, steps_per_jit=1)
    z = z_scores(windows(estimator, num_windows), exact_windows(system, trunc_length, num_windows))
    assert np.abs(z).max() < SIGMAS


def test_es_on_truncations_is_biased_where_an_episode_spans_several() -> None:
    system = LinearSystem(length=8)
    estimator = TruncatedES(VectorizedTruncatedStep(system, 2), unroll_length=4, steps_per_jit=1, std=0.5)
    z = z_scores(windows(estimator, 2), exact_windows(system, 4, 2))
    assert np.abs(z[0]).max() < SIGMAS
    assert np.abs(z[1]).min() > 2 * SIGMAS


def test_crediting_the_last_step_to_new_noise_would_be_noticed() -> None:
    """An inclusive rule would lose the whole signal of a loss at the last step."""
    system = LinearSystem(length=4, last_step_only=True)
    exact = exact_windows(system, 2, 2)
    estimator = TruncatedPES(VectorizedTruncatedStep(system, 2), trunc_length=2, std=0.5, steps_per_jit=1)
    samples = windows(estimator, 2)
    only_new_noise = exact[1] - np.array([0.9**3 + 0.9**2, 0.9**3 + 2 * 0.9**2]) / 2
    assert np.abs(z_scores(samples, exact)).max() < SIGMAS
    assert np.abs(z_scores(samples[:, 1], only_new_noise)).max() > 2 * SIGMAS


@pytest.mark.parametrize("std", [0.1, 1.0])
def test_variance_of_one_pes_window_is_that_of_the_closed_form(std: float) -> None:
    """First window, linear losses, N tasks: E|g|^2 = ((d + 1) |G|^2) / N + |G|^2 in d dimensions."""
    system, num_tasks = LinearSystem(length=20), 2
    estimator = TruncatedPES(
        VectorizedTruncatedStep(system, num_tasks), trunc_length=5, std=std, steps_per_jit=1
    )
    squared = np.sum(windows(estimator, 1)[:, 0] ** 2, axis=-1)
    gradient = np.sum(exact_windows(system, 5, 1)[0] ** 2)
    expected = gradient * (1 + (2 + 1) / num_tasks)
    assert abs(squared.mean() - expected) < SIGMAS * squared.std() / np.sqrt(SAMPLES)
