"""Objectives that truncations estimate piece by piece."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.unspool.outer_trainers.systems import LinearSystem
from unspool.evolution.objectives import LastRecomputed, Telescoped
from unspool.learned_optimizers.base import LearnableSGD
from unspool.outer_trainers.gradient_estimator import OuterState, WorkerWeights
from unspool.outer_trainers.lopt_truncated_step import SimpleVecLOptTruncatedStep, VectorizedLOptTruncatedStep
from unspool.outer_trainers.truncated_es_shared_noise import NRES
from unspool.outer_trainers.truncated_step import (
    TruncatedStep,
    TruncatedUnrollOut,
    VectorizedStep,
    VectorizedTruncatedStep,
)
from unspool.outer_trainers.truncation_schedule import ConstantTruncationSchedule
from unspool.steps.unroll import Inputs, unroll
from unspool.systems.influence_balancing import InfluenceBalancing
from unspool.tasks.base import Task, single_task_to_family
from unspool.tasks.quadratics import FixedDimQuadraticFamily, QuadraticTask
from unspool.types import Batch, Params, PRNGKey

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


def test_a_reset_that_reports_the_end_has_the_loss_of_the_state_it_is_given() -> None:
    step = SimpleVecLOptTruncatedStep(QuadraticTask(3), LearnableSGD(0.1), 2, unroll_length=4)
    theta = step.outer_init(KEY)
    state, _ = unrolled(LastRecomputed(step, samples=3), theta, 4)
    _, out = unrolled(LastRecomputed(step, samples=3), theta, 5)
    expected = step.meta_loss_batch(theta, state, KEY, step.resident_data(), None)
    np.testing.assert_allclose(out.loss[4], expected, rtol=1e-5)
    assert np.all(np.asarray(out.loss[:4]) == 0)
    assert np.all(out.mask)


def test_both_kinds_of_reset_have_the_gradient_of_the_recomputed_loss() -> None:
    """Gradient descent on `sum(x^2)` shrinks x by the same factor at each step: a closed form."""
    lopt, length, rate = LearnableSGD(0.1), 4, 0.1
    task = single_task_to_family(OneParameter())
    steps = (
        SimpleVecLOptTruncatedStep(OneParameter(), lopt, 64, length),
        VectorizedLOptTruncatedStep(task, lopt, ConstantTruncationSchedule(length), 64),
    )
    weights = WorkerWeights(lopt.init(KEY), None, OuterState(jnp.int32(0)))
    # d/d(log rate) of (1 - rate)^(2 length) / 2, of which there is one in `length` steps.
    exact = -((1 - rate) ** (2 * length - 1)) * rate
    for step in steps:
        estimator = NRES(step, length + 1, objective="last_recompute", std=1e-2, perturbation="rademacher")
        state = estimator.init_worker_state(weights, KEY)
        out, _ = estimator.compute_gradient_estimate(weights, KEY, state)
        assert int(out.inner_steps) == 2 * 64 * length
        np.testing.assert_allclose(out.grad["log_lr"], exact, rtol=1e-3)


class OneParameter(Task):
    """`x^2 / 2` from 1."""

    def init(self, key: PRNGKey) -> Params:
        return jnp.ones(())

    def loss(self, params: Params, key: PRNGKey, data: Batch) -> jax.Array:
        return jnp.asarray(params) ** 2 / 2


@pytest.mark.parametrize("system", [InfluenceBalancing(episode_length=20), LinearSystem(4)])
def test_a_system_that_does_not_keep_its_last_state_cannot_recompute_its_loss(system: TruncatedStep) -> None:
    with pytest.raises(ValueError, match=rf"last_recompute.*{system.label()}.*keeps_last_state = True"):
        NRES(VectorizedTruncatedStep(system, 2), 5, objective="last_recompute")
