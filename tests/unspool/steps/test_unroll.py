"""Unrolls of tasks and of pairs, against loops over their steps."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.unspool.outer_trainers.systems import LinearSystem
from unspool.outer_trainers.truncated_step import ResidentData, VectorizedTruncatedStep
from unspool.steps.unroll import (
    Inputs,
    Pair,
    antithetic_thetas,
    antithetic_unroll,
    one_side,
    stack_pair,
    unroll,
    where_tasks,
    zeros_like_result,
)

TASKS, STEPS = 2, 6
STEP = VectorizedTruncatedStep(LinearSystem(2, longest=4), TASKS)
THETA = {"theta": jnp.array([0.3, -0.1])}
NOISE = {"theta": jnp.array([[1.0, 2.0], [-0.5, 0.25]])}
INPUTS = Inputs(ResidentData(()), None)
KEY = jax.random.PRNGKey(3)


@pytest.fixture(scope="module")
def start() -> Any:
    return STEP.init_step_state(THETA, None, jax.random.PRNGKey(0))


def test_an_unroll_is_a_loop_over_steps_with_keys_of_their_own(start: Any) -> None:
    end, out = unroll(STEP, THETA, start, KEY, STEPS, INPUTS, theta_is_vector=False)
    one_step = jax.jit(lambda state, key: STEP.unroll_step(THETA, state, key, ResidentData(()), None))
    state, losses = start, []
    for key in jax.random.split(KEY, STEPS):
        state, of_step = one_step(state, key)
        losses.append(of_step.loss)
    np.testing.assert_allclose(out.loss, losses, rtol=1e-6)
    jax.tree.map(lambda one, other: np.testing.assert_allclose(one, other, rtol=1e-6), end, state)


@pytest.mark.parametrize("stacked", [True, False])
def test_members_of_a_pair_share_keys_and_differ_in_theta(start: Any, stacked: bool) -> None:
    thetas = antithetic_thetas(THETA, NOISE)
    states, out = antithetic_unroll(STEP, thetas, Pair(start, start), KEY, STEPS, INPUTS, stacked=stacked)
    for side, theta in enumerate(thetas):
        state, alone = unroll(STEP, theta, start, KEY, STEPS, INPUTS, theta_is_vector=True)
        np.testing.assert_allclose(out.loss[side], alone.loss, rtol=1e-5)
        np.testing.assert_array_equal(out.is_done[side], alone.is_done)
        np.testing.assert_allclose(states[side].position, state.position, rtol=1e-5)
    assert not np.allclose(out.loss[0], out.loss[1])


def test_the_thetas_of_a_pair_are_symmetric() -> None:
    thetas = antithetic_thetas(THETA, NOISE)
    np.testing.assert_allclose(thetas.pos["theta"], [[1.3, 1.9], [-0.2, 0.15]], rtol=1e-6)
    np.testing.assert_allclose(thetas.neg["theta"], [[-0.7, -2.1], [0.8, -0.35]], rtol=1e-6)


def test_a_pair_survives_stacking() -> None:
    pair = Pair({"x": jnp.arange(3)}, {"x": jnp.arange(3) + 10})
    stacked = stack_pair(pair)
    assert [one_side(stacked, side)["x"].tolist() for side in (0, 1)] == [[0, 1, 2], [10, 11, 12]]


def test_a_choice_between_trees_is_made_task_by_task() -> None:
    one, other = (
        {"x": jnp.ones((2, 3)), "n": jnp.array([1, 2])},
        {"x": jnp.zeros((2, 3)), "n": jnp.array([7, 8])},
    )
    chosen = where_tasks(jnp.array([False, True]), one, other)
    assert (chosen["x"].tolist(), chosen["n"].tolist()) == ([[0, 0, 0], [1, 1, 1]], [7, 2])


def test_zeros_in_the_form_of_a_result_are_made_without_computing_it() -> None:
    computed = []

    def result(x: jax.Array) -> Any:
        jax.debug.callback(lambda: computed.append(1))
        return {"x": x + jnp.float32(1), "n": jnp.int32(3)}

    zeros = zeros_like_result(result, jnp.zeros(2))
    jax.effects_barrier()
    assert computed == []
    assert jax.tree.map(lambda leaf: (leaf.tolist(), str(leaf.dtype)), zeros) == {
        "x": ([0.0, 0.0], "float32"),
        "n": (0, "int32"),
    }


def test_resident_data_is_given_to_every_step_and_streamed_batches_one_by_one() -> None:
    resident, streamed = ResidentData(jnp.arange(3)), jnp.arange(6).reshape(3, 2)
    assert Inputs(resident, None).streamed() is None
    assert Inputs(resident, None).of_step(None) is resident
    inputs = Inputs(streamed, None)
    assert inputs.streamed() is streamed
    assert inputs.of_step(streamed[1]).tolist() == [2, 3]
