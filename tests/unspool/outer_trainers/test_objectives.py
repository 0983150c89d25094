"""Objectives that truncations estimate piece by piece, and the weights of steps."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.unspool.outer_trainers.systems import LinearSystem
from unspool.learned_optimizers.base import LearnableSGD
from unspool.outer_trainers.lopt_truncated_step import VectorizedLOptTruncatedStep
from unspool.outer_trainers.objectives import LastRecomputed, Telescoped
from unspool.outer_trainers.truncated_pes import TruncatedPES
from unspool.outer_trainers.truncated_step import TruncatedUnrollOut, VectorizedStep, VectorizedTruncatedStep
from unspool.outer_trainers.truncation_schedule import ConstantTruncationSchedule
from unspool.outer_trainers.unroll import Inputs, unroll
from unspool.tasks.quadratics import FixedDimQuadraticFamily

THETA = {"theta": jnp.array([0.3, -0.1])}
KEY = jax.random.PRNGKey(0)


def unrolled(step: VectorizedStep, theta: Any, num_steps: int) -> tuple[Any, TruncatedUnrollOut]:
    state = step.init_step_state(theta, None, KEY)
    inputs = Inputs(step.resident_data() or (), None)
    return unroll(step, theta, state, KEY, num_steps, inputs, theta_is_vector=False)


@pytest.mark.parametrize("done_on_reset", [False, True])
def test_telescoped_losses_sum_to_the_last_one_of_each_episode(done_on_reset: bool) -> None:
    step = VectorizedTruncatedStep(LinearSystem(length=4, done_on_reset=done_on_reset), 2)
    _, plain = unrolled(step, THETA, 10)
    _, telescoped = unrolled(Telescoped(step), THETA, 10)
    episodes = telescoped.loss.reshape(2, 5, 2).sum(axis=1)
    np.testing.assert_allclose(episodes, plain.loss.reshape(2, 5, 2)[:, 3], rtol=1e-5)


def test_the_last_loss_is_recomputed_on_fresh_batches_at_an_episodes_end_only() -> None:
    family = FixedDimQuadraticFamily(3)
    step = VectorizedLOptTruncatedStep(family, LearnableSGD(0.1), ConstantTruncationSchedule(4), 2)
    theta = step.outer_init(KEY)
    _, out = unrolled(LastRecomputed(step, samples=3), theta, 5)
    state, _ = unrolled(LastRecomputed(step, samples=3), theta, 4)
    expected = step.meta_loss_batch(theta, state, KEY, step.resident_data(), None)
    np.testing.assert_allclose(out.loss[3], expected, rtol=1e-5)
    assert np.all(np.delete(np.asarray(out.loss), 3, axis=0) == 0)


def report(iteration: list[int], episode_length: jax.Array | None) -> TruncatedUnrollOut:
    steps = jnp.array(iteration)[:, None]
    anything = jnp.zeros(steps.shape)
    return TruncatedUnrollOut(anything, steps > 100, (), steps, steps > 0, episode_length)


def weights(out: TruncatedUnrollOut, **options: Any) -> Any:
    step = VectorizedTruncatedStep(LinearSystem(4), 1)
    return TruncatedPES(step, 2, steps_per_jit=1, **options).step_weights(out, None)


def test_all_steps_count_the_same_by_default() -> None:
    assert weights(report([1, 2], None)) is None


def test_every_episode_counts_the_same_if_steps_are_weighted_by_episode() -> None:
    out = report([1, 2, 3, 4, 0, 1, 2], jnp.array([[4], [4], [4], [4], [4], [2], [2]]))
    by_episode = np.asarray(weights(out, weight_by="episode"))[:, 0]
    assert by_episode[:4].sum() == by_episode[5:].sum() == 2  # the window's length, the mean being unknown


def test_steps_seldom_reached_count_by_their_inverse_survival() -> None:
    out = report([1, 2, 3, 4, 5], None)
    seen = np.asarray(weights(out, death_probability=0.2))[:, 0]
    np.testing.assert_allclose(seen * 0.8 ** np.array([0, 0, 1, 1, 2]), 1, rtol=1e-6)


def test_a_step_that_does_not_know_its_episodes_length_cannot_be_weighted_by_it() -> None:
    with pytest.raises(ValueError, match=r"weight_by='episode'.*LinearSystem.*episode_length"):
        weights(report([1], None), weight_by="episode")
