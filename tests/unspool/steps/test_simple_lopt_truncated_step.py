"""The one-task truncated step: its losses by hand, its episodes, and its data."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.unspool.outer_trainers.tiny_tasks import CountingTask, FollowTheData, Position, StepsOfTheLength
from unspool.learned_optimizers.base import LearnableSGD
from unspool.outer_trainers.gradient_learner import OuterState, WorkerWeights
from unspool.outer_trainers.lopt_truncated_step import SimpleLOptTruncatedStep, SimpleVecLOptTruncatedStep
from unspool.outer_trainers.truncated_pes import TruncatedPES
from unspool.outer_trainers.truncated_step import VectorizedTruncatedStep
from unspool.tasks.fixed.image_mlp import ImageMLP_Digits8_Relu32
from unspool.tasks.quadratics import FixedDimQuadraticFamily, QuadraticTask

SGD = LearnableSGD(0.1)
THETA = SGD.init(jax.random.PRNGKey(0))


def run(step: VectorizedTruncatedStep, num_steps: int, theta: Any = THETA) -> Any:
    """States before, and outputs, of a run by hand; leaves `[num_steps, num_tasks, ...]`."""
    state = step.init_step_state(theta, None, jax.random.PRNGKey(1))
    advance = jax.jit(lambda state, key: step.unroll_step(theta, state, key, step.resident_data(), None))
    states, outs = [], []
    for key in jax.random.split(jax.random.PRNGKey(2), num_steps):
        states.append(state)
        state, out = advance(state, key)
        outs.append(out)
    return tuple(jax.tree.map(lambda *leaves: np.stack(leaves), *trees) for trees in (states, outs))


def test_the_reset_itself_reports_that_the_episode_is_done() -> None:
    _, out = run(SimpleVecLOptTruncatedStep(QuadraticTask(3), SGD, num_tasks=2, unroll_length=3), 8)
    assert out.mask[:, 0].tolist() == [True, True, True, False] * 2
    assert out.is_done[:, 0].tolist() == [False, False, False, True] * 2
    assert out.iteration[:, 0].tolist() == [1, 2, 3, 0] * 2
    assert np.all(out.episode_length == 3)


def test_losses_are_those_before_the_update_normalized_by_the_task() -> None:
    _, out = run(SimpleVecLOptTruncatedStep(FollowTheData(), SGD, num_tasks=2, unroll_length=3), 5)
    expected = [0.5, 0.5 * 0.64, 0.5 * 0.64**2, 0.0, 0.5]
    np.testing.assert_allclose(out.loss, np.tile(np.array(expected)[:, None], 2), rtol=1e-5)


def test_a_reset_draws_new_parameters() -> None:
    states, out = run(SimpleVecLOptTruncatedStep(QuadraticTask(3), SGD, num_tasks=2, unroll_length=2), 4)
    begun, begun_again = states.inner_opt_state.params[0], states.inner_opt_state.params[3]
    assert not np.any(begun == begun_again)
    np.testing.assert_allclose(out.loss[3], np.sum(begun_again**2, axis=-1), rtol=1e-6)


def test_a_model_state_is_carried_and_reset() -> None:
    states, _ = run(SimpleVecLOptTruncatedStep(CountingTask(), SGD, num_tasks=1, unroll_length=2), 4)
    assert states.inner_opt_state.state["losses"][:, 0].tolist() == [0, 1, 2, 0]


def test_the_inner_optimizer_receives_the_length() -> None:
    step = SimpleVecLOptTruncatedStep(Position(), StepsOfTheLength(), num_tasks=1, unroll_length=4)
    states, _ = run(step, 6, theta=step.outer_init(jax.random.PRNGKey(0)))
    assert states.inner_opt_state.num_steps[:, 0].tolist() == [4.0] * 6


def test_resident_batches_differ_between_tasks_and_steps() -> None:
    _, out = run(SimpleVecLOptTruncatedStep(ImageMLP_Digits8_Relu32(), SGD, num_tasks=3), 3)
    assert len(np.unique(out.loss)) == out.loss.size


def test_host_batches_give_what_resident_data_gives() -> None:
    step = SimpleVecLOptTruncatedStep(FollowTheData(), SGD, num_tasks=2)
    state = step.init_step_state(THETA, None, jax.random.PRNGKey(1))
    batches = jax.tree.map(lambda leaf: leaf[1], step.get_batch(2))
    for data in (batches, step.resident_data()):
        _, out = step.unroll_step(THETA, state, jax.random.PRNGKey(2), data, None)
        assert out.loss.tolist() == [0.5, 0.5]


def test_meta_loss_batch_is_the_normalized_loss_where_the_parameters_are() -> None:
    step = SimpleVecLOptTruncatedStep(FollowTheData(), SGD, num_tasks=2)
    state = step.init_step_state(THETA, None, jax.random.PRNGKey(1))
    losses = step.meta_loss_batch(THETA, state, jax.random.PRNGKey(2), step.resident_data(), None)
    assert losses.tolist() == [0.5, 0.5]


@pytest.mark.parametrize("make_key", [jax.random.PRNGKey, jax.random.key])
def test_an_estimator_unrolls_it(make_key: Any) -> None:
    estimator = TruncatedPES(
        SimpleVecLOptTruncatedStep(FollowTheData(), SGD, num_tasks=4), 8, std=0.1, steps_per_jit=8
    )
    weights = WorkerWeights(THETA, None, OuterState(jnp.int32(0)))
    state = estimator.init_worker_state(weights, make_key(1))
    out, _ = estimator.compute_gradient_estimate(weights, make_key(2), state)
    assert out.weight == 4
    assert out.grad["log_lr"] < 0


def test_a_family_is_rejected_with_the_step_that_takes_one() -> None:
    with pytest.raises(
        TypeError, match=r"task=FixedDim.*\): it must be an instance of Task; .*VectorizedLOptTruncatedStep"
    ):
        SimpleLOptTruncatedStep(FixedDimQuadraticFamily(3), SGD)
