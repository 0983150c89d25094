"""Copies of a task share everything but theta."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.unspool.outer_trainers.systems import LinearSystem
from unspool.evolution.repeated_step import RepeatedStep, apart, joined
from unspool.outer_trainers.truncated_step import ResidentData, VectorizedTruncatedStep

TASKS, COPIES = 2, 3
STEP = VectorizedTruncatedStep(LinearSystem(4, longest=9, starts_at_theta=True), TASKS)
REPEATED = RepeatedStep(STEP, COPIES)
THETA = {"theta": jnp.array([0.3, -0.1])}
THETAS = {"theta": jnp.arange(TASKS * COPIES * 2.0).reshape(TASKS * COPIES, 2)}
KEY = jax.random.PRNGKey(0)


def test_copies_of_a_task_are_adjacent() -> None:
    tree = {"x": jnp.arange(12).reshape(6, 2), "empty": jnp.zeros((6, 0))}
    split = apart(tree, 3)
    assert (split["x"].shape, split["empty"].shape) == ((2, 3, 2), (2, 3, 0))
    assert split["x"][1, :, 0].tolist() == [6, 8, 10]
    jax.tree.map(np.testing.assert_array_equal, joined(split), tree)


def test_copies_under_one_theta_have_the_state_of_their_task() -> None:
    single = STEP.init_step_state(THETA, None, KEY)
    repeated = REPEATED.init_step_state(THETA, None, KEY)
    jax.tree.map(
        lambda one, all_: np.testing.assert_array_equal(np.repeat(one, COPIES), all_), single, repeated
    )
    assert len(set(single.length.tolist())) > 1


@pytest.fixture(scope="module")
def stepped() -> tuple[Any, Any]:
    """States and outputs after one step of every copy, under its own theta."""
    state = REPEATED.init_step_state(THETAS, None, KEY, theta_is_vector=True)
    return REPEATED.unroll_step(THETAS, state, KEY, ResidentData(()), None, theta_is_vector=True)


@pytest.mark.parametrize("copy", range(COPIES))
def test_each_copy_is_the_step_under_its_own_theta(stepped: tuple[Any, Any], copy: int) -> None:
    theta = jax.tree.map(lambda leaf: leaf[copy::COPIES], THETAS)
    state = STEP.init_step_state(theta, None, KEY, theta_is_vector=True)
    alone = STEP.unroll_step(theta, state, KEY, ResidentData(()), None, theta_is_vector=True)
    of_copy = jax.tree.map(lambda leaf: leaf[copy::COPIES], stepped)
    jax.tree.map(lambda one, other: np.testing.assert_allclose(one, other, rtol=1e-6), of_copy, alone)


def test_the_number_of_tasks_counts_copies_and_the_data_does_not() -> None:
    assert REPEATED.num_tasks == TASKS * COPIES
    assert REPEATED.resident_data() == STEP.resident_data()
    assert REPEATED.episodes(None) == STEP.episodes(None)
    assert (REPEATED.label(), REPEATED.keeps_last_state) == (STEP.label(), STEP.keeps_last_state)
