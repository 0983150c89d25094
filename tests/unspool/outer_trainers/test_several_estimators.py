"""Several estimators, over several families of tasks, in one learner."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tests.unspool.outer_trainers.tiny_tasks import CountingTask, FollowTheData, ScaledFamily
from unspool.learned_optimizers.base import LearnableSGD
from unspool.optimizers import SGD
from unspool.outer_trainers.full_es import FullES
from unspool.outer_trainers.gradient_learner import (
    OuterState,
    SingleMachineGradientLearner,
    WorkerWeights,
    gradient_worker_compute,
)
from unspool.outer_trainers.lopt_truncated_step import SimpleVecLOptTruncatedStep, VectorizedLOptTruncatedStep
from unspool.outer_trainers.truncated_grad import TruncatedGrad
from unspool.outer_trainers.truncated_pes import TruncatedPES
from unspool.outer_trainers.truncation_schedule import (
    ConstantTruncationSchedule,
    NeverEndingTruncationSchedule,
)
from unspool.tasks.base import TaskFamily, single_task_to_family

LOPT = LearnableSGD(0.1)
KEY = jax.random.PRNGKey(0)
WEIGHTS = WorkerWeights(LOPT.init(KEY), None, OuterState(jnp.int32(0)))
FOLLOW, COUNTING = single_task_to_family(FollowTheData()), single_task_to_family(CountingTask())

# Losses of four steps: three and a reset of FollowTheData, in one task; four of CountingTask, in three tasks.
FOLLOW_LOSSES = np.array([0.5, 0.5 * 0.64, 0.5 * 0.64**2])
COUNTING_LOSSES = np.array([n + 0.64**n for n in range(4)])
MEAN_LOSS = (FOLLOW_LOSSES.mean() + 3 * COUNTING_LOSSES.mean()) / (1 + 3)


def grad_of(family: TaskFamily, length: int, num_tasks: int) -> TruncatedGrad:
    step = VectorizedLOptTruncatedStep(family, LOPT, ConstantTruncationSchedule(length), num_tasks)
    return TruncatedGrad(step, 4, steps_per_jit=4)


def two_families() -> list[Any]:
    return [grad_of(FOLLOW, 3, num_tasks=1), grad_of(COUNTING, 9, num_tasks=3)]


def estimate(estimator: Any) -> Any:
    """Neither family is random, so any key gives the same."""
    state = estimator.init_worker_state(WEIGHTS, KEY)
    return estimator.compute_gradient_estimate(WEIGHTS, KEY, state)[0]


def gradient_over_tasks() -> float:
    """The mean of both families' gradients, by their tasks."""
    of_follow, of_counting = (float(estimate(one).grad["log_lr"]) for one in two_families())
    return (of_follow + 3 * of_counting) / 4


def test_a_worker_averages_its_estimators_by_their_tasks() -> None:
    estimators = two_families()
    states = [estimator.init_worker_state(WEIGHTS, KEY) for estimator in estimators]
    computed = gradient_worker_compute(WEIGHTS, estimators, states, KEY, with_metrics=False)
    assert computed.to_put.weight == 4
    np.testing.assert_allclose(computed.to_put.mean_loss, MEAN_LOSS, rtol=1e-5)
    np.testing.assert_allclose(computed.to_put.theta_grads["log_lr"], gradient_over_tasks(), rtol=1e-5)


def test_metrics_of_each_estimator_are_named_by_its_kind_and_task() -> None:
    estimators = two_families()
    states = [estimator.init_worker_state(WEIGHTS, KEY) for estimator in estimators]
    metrics = gradient_worker_compute(WEIGHTS, estimators, states, KEY, with_metrics=False).metrics
    names = {name.partition("/")[0] for name in metrics}
    assert names == {"TruncatedGrad_FollowTheData_x1", "TruncatedGrad_CountingTask_x3"}
    assert metrics["TruncatedGrad_CountingTask_x3/inner_step"] == 4


def test_metrics_of_estimators_that_are_called_the_same_are_numbered() -> None:
    estimators = two_families()[:1] * 3
    states = [estimator.init_worker_state(WEIGHTS, KEY) for estimator in estimators]
    metrics = gradient_worker_compute(WEIGHTS, estimators, states, KEY, with_metrics=False).metrics
    label = estimators[0].cfg_name()
    assert {name.partition("/")[0] for name in metrics} == {label, f"{label}#2", f"{label}#3"}


def test_one_learner_follows_the_mean_over_its_lanes() -> None:
    learner = SingleMachineGradientLearner(LOPT, two_families(), SGD(1.0))
    state = learner.init(KEY)
    before = learner.get_meta_params(state)["log_lr"]
    state, loss, metrics = learner.update(state, KEY)
    np.testing.assert_allclose(loss, MEAN_LOSS, rtol=1e-5)
    assert metrics["used"] == 2
    moved = learner.get_meta_params(state)["log_lr"] - before
    np.testing.assert_allclose(moved, -gradient_over_tasks(), rtol=1e-4)


def test_estimators_of_every_kind_share_a_learner() -> None:
    never_ending = VectorizedLOptTruncatedStep(ScaledFamily(), LOPT, NeverEndingTruncationSchedule(), 2)
    estimators = [
        TruncatedPES(SimpleVecLOptTruncatedStep(FollowTheData(), LOPT, 2), 4, steps_per_jit=4),
        FullES(never_ending, ConstantTruncationSchedule(4), steps_per_jit=4),
        grad_of(COUNTING, 3, num_tasks=2),
    ]
    learner = SingleMachineGradientLearner(LOPT, estimators, SGD(1e-2))
    state = learner.init(KEY)
    for _ in range(2):
        state, loss, metrics = learner.update(state, KEY)
        assert (metrics["used"], metrics["applied"]) == (3, 1)
        assert np.isfinite(loss)
