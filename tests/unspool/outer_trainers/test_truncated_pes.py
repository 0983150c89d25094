"""The noise that persists from truncation to truncation."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.unspool.outer_trainers.systems import LinearSystem
from unspool.outer_trainers.gradient_estimator import OuterState, WorkerWeights
from unspool.outer_trainers.truncated_pes import PESWorkerState, TruncatedPES
from unspool.outer_trainers.truncated_step import VectorizedTruncatedStep

LENGTH, WINDOW = 6, 3
WEIGHTS = WorkerWeights({"theta": jnp.array([0.3, -0.1])}, None, OuterState(jnp.int32(0)))
ESTIMATOR = TruncatedPES(VectorizedTruncatedStep(LinearSystem(LENGTH), 2), WINDOW, std=0.5)


@pytest.fixture(scope="module")
def states() -> list[PESWorkerState]:
    """The states before the first estimate and after each of three."""
    found: list[Any] = [ESTIMATOR.init_worker_state(WEIGHTS, jax.random.PRNGKey(0))]
    for key in jax.random.split(jax.random.PRNGKey(1), 3):
        out, _ = ESTIMATOR.compute_gradient_estimate(WEIGHTS, key, found[-1])
        found.append(out.unroll_state)
    return found


def test_an_episode_has_no_noise_before_its_first_truncation(states: list[PESWorkerState]) -> None:
    assert not np.any(states[0].accumulator["theta"])


def test_noise_accumulates_within_an_episode(states: list[PESWorkerState]) -> None:
    first = np.asarray(states[1].accumulator["theta"])
    assert first.shape == (2, 2)
    assert len(np.unique(first)) == 4
    # The members of a pair differ by twice the noise, as far as it has moved them.
    weights = np.array([[0.9 ** (3 - step), 0.9 ** (3 - step) * step] for step in (1, 2, 3)]).sum(axis=0)
    apart = np.asarray(states[1].pos_state.position - states[1].neg_state.position)
    np.testing.assert_allclose(apart, 2 * first @ weights, rtol=1e-4)


def test_no_noise_is_carried_into_an_episode_whose_reset_is_pending(states: list[PESWorkerState]) -> None:
    assert np.all(states[2].pos_state.is_done)
    assert not np.any(states[2].accumulator["theta"])


def test_a_new_episode_carries_the_noise_of_its_own_truncations_only(states: list[PESWorkerState]) -> None:
    carried = np.asarray(states[3].accumulator["theta"])
    # Two steps of the new episode followed the reset.
    weights = np.array([[0.9 ** (2 - step), 0.9 ** (2 - step) * step] for step in (1, 2)]).sum(axis=0)
    apart = np.asarray(states[3].pos_state.position - states[3].neg_state.position)
    np.testing.assert_allclose(apart, 2 * carried @ weights, rtol=1e-4)
