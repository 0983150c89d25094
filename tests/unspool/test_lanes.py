"""Random streams and states of lanes."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.unspool.outer_trainers.examples import ESTIMATORS, example, weights_of
from tests.unspool.outer_trainers.systems import LinearSystem
from unspool import lanes
from unspool.outer_trainers.gradient_estimator import GradientEstimator, OuterState, WorkerWeights
from unspool.outer_trainers.truncated_es import TruncatedES
from unspool.outer_trainers.truncated_step import VectorizedTruncatedStep

WEIGHTS = WorkerWeights({"theta": jnp.array([0.3, -0.1])}, None, OuterState(jnp.int32(0)))
SEEDS = {"integer": 5, "array": jnp.uint32(5), "key": jax.random.PRNGKey(5)}


@pytest.fixture(scope="module")
def estimator() -> GradientEstimator:
    """Six steps of an estimate, of episodes of four steps and a reset."""
    return TruncatedES(VectorizedTruncatedStep(LinearSystem(4), 2), 6, std=0.5)


def data_of(key: jax.Array) -> tuple[int, ...]:
    return tuple(np.asarray(key).tolist())


@pytest.mark.parametrize("kind", SEEDS)
def test_every_form_of_a_seed_is_the_same_root_key(kind: str) -> None:
    assert data_of(lanes.root_key(SEEDS[kind])) == data_of(jax.random.PRNGKey(5))


def test_the_largest_seed_of_32_bits_is_a_key_of_its_own() -> None:
    assert data_of(lanes.root_key(2**32 - 1)) == (0, 2**32 - 1)


def test_a_typed_key_is_a_root_key() -> None:
    key = jax.random.key(5)
    assert lanes.root_key(key) is key


def test_a_lanes_key_folds_in_the_lane_and_then_the_sequence_number() -> None:
    expected = jax.random.fold_in(jax.random.fold_in(jax.random.PRNGKey(5), 3), 7)
    assert data_of(lanes.lane_key(5, 3, 7)) == data_of(expected)


def test_no_two_streams_of_a_run_share_a_key() -> None:
    keys = [lanes.theta_key(5), lanes.theta_key(6)]
    keys += [lanes.optimizer_key(5, step) for step in range(3)]
    keys += [lanes.lane_key(5, lane, seq) for lane in range(3) for seq in range(3)]
    assert len({data_of(key) for key in keys}) == len(keys)


@pytest.mark.parametrize("kind", SEEDS)
def test_the_outer_optimizers_key_depends_on_the_seed_and_not_on_its_form(kind: str) -> None:
    assert data_of(lanes.optimizer_key(SEEDS[kind], 4)) == data_of(lanes.optimizer_key(5, 4))


@pytest.mark.parametrize("name", ESTIMATORS)
def test_the_shape_of_a_lanes_state_is_known_without_computing_it(name: str) -> None:
    estimator = example(name)
    weights = weights_of(estimator)
    shape = lanes.lane_state_shape(estimator, weights)
    state = lanes.init_lane(estimator, weights, 0, 0)
    assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), shape) == jax.tree.map(
        lambda leaf: (leaf.shape, leaf.dtype), state
    )


def estimates(estimator: GradientEstimator, state: Any, lane: int, numbers: list[int]) -> lanes.LaneEstimate:
    """Return the last of several estimates in a row."""
    for seq in numbers:
        estimate = lanes.estimate_lane(estimator, WEIGHTS, state, 0, lane, seq)
        state = estimate.unroll_state
    return estimate


def test_a_lane_continues_with_the_same_bits_from_a_restored_state(estimator: GradientEstimator) -> None:
    first = estimates(estimator, lanes.init_lane(estimator, WEIGHTS, 0, 1), 1, [1])
    restored = lanes.place_state(estimator, jax.tree.map(np.asarray, first.unroll_state))
    continued, resumed = (estimates(estimator, state, 1, [2]) for state in (first.unroll_state, restored))
    jax.tree.map(np.testing.assert_array_equal, continued, resumed)


def test_lanes_and_sequence_numbers_have_noise_of_their_own(estimator: GradientEstimator) -> None:
    state = lanes.init_lane(estimator, WEIGHTS, 0, 0)
    drawn = [estimates(estimator, state, lane, [seq]) for lane, seq in ((0, 1), (0, 2), (1, 1))]
    assert len({tuple(estimate.grad["theta"].tolist()) for estimate in drawn}) == 3


def test_a_report_summarises_the_unroll(estimator: GradientEstimator) -> None:
    estimate = estimates(estimator, lanes.init_lane(estimator, WEIGHTS, 0, 0), 0, [1])
    # Four steps with a loss, a reset, and the first step of the next episode; in two tasks and both signs.
    assert int(estimate.info.inner_steps) == 2 * 2 * 5
    assert float(estimate.info.inner_step_mean) == 1.0
    assert (float(estimate.weight), int(estimate.info.diverged_tasks)) == (2.0, 0)
    assert {str(leaf.dtype) for leaf in (estimate.mean_loss, estimate.weight)} == {"float32"}
