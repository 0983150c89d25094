"""Estimators, learners and curves on data that comes from iterators."""

import dataclasses
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from unspool.eval_training import multi_task_training_curves, single_task_training_curves
from unspool.learned_optimizers.base import LearnableSGD
from unspool.optimizers.base import SGD
from unspool.outer_trainers.full_es import FullES
from unspool.outer_trainers.full_grad import FullGrad
from unspool.outer_trainers.gradient_learner import (
    GradientEstimator,
    OuterState,
    SingleMachineGradientLearner,
    WorkerWeights,
)
from unspool.outer_trainers.lopt_truncated_step import SimpleVecLOptTruncatedStep, VectorizedLOptTruncatedStep
from unspool.outer_trainers.truncated_es import TruncatedES
from unspool.outer_trainers.truncated_es_shared_noise import NRES
from unspool.outer_trainers.truncated_grad import TruncatedGrad
from unspool.outer_trainers.truncated_pes import TruncatedPES
from unspool.outer_trainers.truncation_schedule import (
    ConstantTruncationSchedule,
    NeverEndingTruncationSchedule,
)
from unspool.tasks.base import Task, single_task_to_family
from unspool.tasks.datasets.base import SPLITS, Datasets, EndOfDataError
from unspool.types import Batch, Params, PRNGKey, Scalar

KEY = jax.random.PRNGKey(0)
LOPT = LearnableSGD(0.1)
WEIGHTS = WorkerWeights(LOPT.init(KEY), None, OuterState(0))
EPISODE = ConstantTruncationSchedule(4)


class Streamed(Task):
    """`(x - batch)^2` from x = 0; the batches of a split count up from 1000 times its position."""

    def __init__(self, batches: int | None = None) -> None:
        self.taken: list[float] = []

        def split(start: int) -> Any:
            for number in itertools.count(start) if batches is None else range(start, start + batches):
                self.taken.append(number)
                yield np.float32(number)

        self.datasets = Datasets(**{name: split(1000 * index) for index, name in enumerate(SPLITS)})

    def init(self, key: PRNGKey) -> Params:
        return jnp.zeros(())

    def loss(self, params: Params, key: PRNGKey, data: Batch) -> Scalar:
        return (params - data) ** 2


def step_of(task: Task, **options: Any) -> VectorizedLOptTruncatedStep:
    return VectorizedLOptTruncatedStep(single_task_to_family(task), LOPT, EPISODE, 2, **options)


def whole(step: VectorizedLOptTruncatedStep) -> VectorizedLOptTruncatedStep:
    return dataclasses.replace(step, trunc_sched=NeverEndingTruncationSchedule())


ESTIMATORS: dict[str, Any] = {
    "TruncatedPES": lambda step: TruncatedPES(step, 4),
    "TruncatedES": lambda step: TruncatedES(step, 4),
    "NRES": lambda step: NRES(step, 4),
    "TruncatedGrad": lambda step: TruncatedGrad(step, 4),
    "FullES": lambda step: FullES(whole(step), EPISODE, steps_per_jit=4),
    "FullGrad": lambda step: FullGrad(whole(step), EPISODE),
}


def losses(estimator: GradientEstimator, estimates: int) -> list[list[float]]:
    """Of the positive unrolls, `[steps, 2]`, in a row."""
    state = estimator.init_worker_state(WEIGHTS, KEY)
    rows: list[list[float]] = []
    for index in range(estimates):
        out, _ = estimator.compute_gradient_estimate(WEIGHTS, jax.random.fold_in(KEY, index), state)
        state = out.unroll_state
        assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(out.grad))
        rows += np.asarray(out.unroll_info.loss).tolist()
    return rows


@pytest.mark.parametrize("name", ESTIMATORS)
def test_estimators_stream_new_batches_at_each_estimate(name: str) -> None:
    task = Streamed()
    losses(ESTIMATORS[name](step_of(task)), 2)
    taken = sorted(task.taken)
    assert len(taken) >= 16
    assert taken == list(range(len(taken)))


def test_every_task_and_step_gets_its_own_batch() -> None:
    # The first losses of the two tasks are those of the batches 0 and 1 at x = 0.
    first = losses(TruncatedPES(step_of(Streamed()), 2, std=1e-6), 1)[0]
    np.testing.assert_allclose(first, [0.0, 1.0], atol=1e-5)


def test_a_split_for_the_reported_loss_is_streamed_too() -> None:
    task = Streamed()
    rows = losses(TruncatedPES(step_of(task, meta_loss_split="outer_valid"), 2, std=1e-6), 1)
    # After one update from x = 0 on batch 0, x = 0; the loss is that of the first batch of outer_valid.
    np.testing.assert_allclose(rows[0][0], 2000.0**2, rtol=1e-5)
    assert sum(number < 1000 for number in task.taken) == 4
    assert sum(number >= 2000 for number in task.taken) == 4


def test_the_simple_step_streams_as_well() -> None:
    step = SimpleVecLOptTruncatedStep(Streamed(), LOPT, 2, unroll_length=4)
    assert step.resident_data() is None
    assert np.all(np.isfinite(losses(TruncatedPES(step, 3), 2)))


def test_a_learner_trains_on_a_stream_until_it_ends() -> None:
    task = Streamed(batches=10)
    learner = SingleMachineGradientLearner(LOPT, [TruncatedPES(step_of(task), 2)], optax.adam(1e-2))
    state = learner.init(KEY)
    for _ in range(2):  # of four batches each
        state, _, metrics = learner.update(state, KEY)
        assert metrics["applied"] == 1
    with pytest.raises(EndOfDataError, match=r"Streamed: .*'train' ended after 10 batches"):
        learner.update(state, KEY)


def test_recomputed_losses_take_what_was_streamed_for_the_step() -> None:
    options = {"objective": "last_recompute", "std": 1e-6}
    step = step_of(Streamed(), meta_loss_split="outer_valid", outer_data_split="outer_valid")
    out = losses(TruncatedPES(step, 5, **options), 1)
    assert out[3][0] > 1e6  # at the episode's last step: of outer_valid
    with pytest.raises(ValueError, match=r"outer_data_split='test'\): .*streamed"):
        losses(TruncatedPES(step_of(Streamed(), outer_data_split="test"), 5, **options), 1)


def test_outer_batches_are_of_the_outer_split() -> None:
    step = step_of(Streamed(), outer_data_split="outer_valid")
    assert step.get_outer_batch(2).tolist() == [[2000, 2001], [2002, 2003]]
    assert step.get_outer_batch().tolist() == [2004, 2005]
    state = step.init_step_state(WEIGHTS.theta, None, KEY)
    losses = step.meta_loss_batch(WEIGHTS.theta, state, KEY, step.get_outer_batch(), None)
    np.testing.assert_allclose(losses, [2006.0**2, 2007.0**2], rtol=1e-6)


def test_curves_are_of_streamed_batches() -> None:
    curves = single_task_training_curves(Streamed(), SGD(0.0), 3, KEY, eval_every=2, eval_batches=2)
    # Evaluations before updates 0 and 2 take two batches of train each.
    assert curves["train/loss"].tolist() == [4.0, 9.0, 36.0]
    assert curves["eval/test/loss"].shape == (3,)
    np.testing.assert_allclose(curves["eval/test/loss"][0], (3000.0**2 + 3001.0**2) / 2, rtol=1e-6)
    many = multi_task_training_curves(
        single_task_to_family(Streamed()), LOPT, WEIGHTS.theta, n_tasks=2, steps=3, eval_just_at_end=True
    )
    np.testing.assert_allclose(many["train/loss"][:, 0], [0.0, 9.0])


def test_curves_name_the_stream_that_ends() -> None:
    with pytest.raises(EndOfDataError, match=r"Streamed: .*'train' ended after 4 batches"):
        single_task_training_curves(Streamed(batches=4), SGD(), 5, KEY, eval_every=5, last_eval_batches=2)
