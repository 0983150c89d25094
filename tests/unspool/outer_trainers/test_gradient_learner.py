"""The outer loop: weighted means, what is left out, and lanes in one process."""

import dataclasses
import logging
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.unspool.outer_trainers.examples import example, weights_of
from unspool import lanes
from unspool.learned_optimizers.base import LearnableSGD
from unspool.optimizers.base import SGD
from unspool.optimizers.optax_opts import Adam
from unspool.outer_trainers.gradient_learner import (
    AggregatedGradient,
    GradientEstimator,
    GradientEstimatorOut,
    GradientLearner,
    SingleMachineGradientLearner,
    WorkerWeights,
    gradient_worker_compute,
)
from unspool.outer_trainers.lopt_truncated_step import VectorizedLOptTruncatedStep
from unspool.outer_trainers.truncated_pes import TruncatedPES
from unspool.outer_trainers.truncation_schedule import LogUniformLengthSchedule
from unspool.tasks.quadratics import FixedDimQuadraticFamily
from unspool.types import PRNGKey, Theta

KEY = jax.random.PRNGKey(0)


@dataclasses.dataclass(frozen=True)
class Vector:
    """Initialises theta as a vector of zeros."""

    def init(self, key: PRNGKey) -> Theta:
        return {"w": jnp.zeros(3)}


def entry(value: float, weight: float = 1.0, loss: float = 0.0) -> AggregatedGradient:
    return AggregatedGradient({"w": jnp.full(3, value)}, None, jnp.float32(loss), jnp.float32(weight))


def after(*entries: AggregatedGradient) -> tuple[np.ndarray, Any]:
    """Theta after one SGD step of rate 1, and the metrics."""
    learner = GradientLearner(Vector(), optax.sgd(1.0))
    state, metrics = learner.update(learner.init(KEY), entries)
    return np.asarray(learner.get_meta_params(state)["w"]), metrics


def test_theta_moves_against_the_weighted_mean() -> None:
    theta, metrics = after(entry(1.0, weight=3.0, loss=2.0), entry(5.0, weight=1.0, loss=6.0))
    np.testing.assert_allclose(theta, -2.0)
    assert float(metrics["mean_loss"]) == 3.0


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_an_entry_that_is_not_finite_weighs_nothing(bad: float) -> None:
    theta, metrics = after(entry(1.0), entry(bad))
    np.testing.assert_allclose(theta, -1.0)
    assert int(metrics["used"]) == 1


@pytest.mark.parametrize("entries", [(entry(np.nan),), (entry(1.0, weight=0.0), entry(2.0, weight=0.0))])
def test_with_nothing_to_apply_theta_stays_and_the_iteration_counts_on(entries: Any) -> None:
    learner = GradientLearner(Vector(), optax.adam(1.0))
    before = learner.init(KEY)
    state, metrics = learner.update(before, entries)
    jax.tree.map(
        np.testing.assert_array_equal, learner.get_meta_params(state), learner.get_meta_params(before)
    )
    assert int(metrics["applied"]) == 0
    assert int(learner.get_state_for_worker(state).outer_state.outer_iteration) == 1


def test_an_update_that_would_make_theta_infinite_is_not_made() -> None:
    learner = GradientLearner(Vector(), optax.sgd(1e38))
    state, metrics = learner.update(learner.init(KEY), [entry(1e10)])
    assert int(metrics["applied"]) == 0
    np.testing.assert_array_equal(learner.get_meta_params(state)["w"], 0.0)


@pytest.mark.parametrize(
    "optimizer", [optax.adam(0.1), optax.rmsprop(0.1), Adam(0.1)], ids=["adam", "rmsprop", "ours"]
)
def test_a_finite_gradient_whose_square_overflows_does_not_freeze_the_optimizer(optimizer: Any) -> None:
    learner = GradientLearner(Vector(), optimizer)
    state, _ = learner.update(learner.init(KEY), [entry(1.0)])
    refused, metrics = learner.update(state, [entry(1e20)])
    assert (int(metrics["used"]), int(metrics["applied"])) == (1, 0)
    moved, metrics = learner.update(refused, [entry(1.0)])
    assert int(metrics["applied"]) == 1
    assert np.all(learner.get_meta_params(moved)["w"] < learner.get_meta_params(state)["w"] - 0.05)
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(moved))


def test_an_optimizer_may_start_from_an_infinity() -> None:
    def update(grads: Theta, best: jax.Array, params: Theta, value: jax.Array, **_: Any) -> Any:
        return jax.tree.map(jnp.negative, grads), jnp.minimum(best, value)

    best_so_far = optax.GradientTransformationExtraArgs(lambda params: jnp.float32(jnp.inf), update)
    learner = GradientLearner(Vector(), best_so_far)
    state, metrics = learner.update(learner.init(KEY), [entry(1.0, loss=3.0)])
    assert int(metrics["applied"]) == 1
    np.testing.assert_array_equal(learner.get_meta_params(state)["w"], -1.0)


@dataclasses.dataclass(frozen=True)
class RandomWalk(SGD):
    """An optimizer that ignores gradients and moves by its key alone."""

    def update(self, opt_state: Any, grad: Any, *args: Any, key: Any = None, **kwargs: Any) -> Any:
        noise = jax.tree.map(lambda leaf: jax.random.normal(key, leaf.shape), grad)
        return super().update(opt_state, noise, *args, key=key, **kwargs)


def test_the_outer_optimizers_keys_follow_the_seed_and_the_outer_step() -> None:
    learner = dataclasses.replace(single_machine(num_lanes=1), theta_opt=RandomWalk(1.0))

    def walk(seed: int) -> list[float]:
        key = jax.random.PRNGKey(seed)
        state, path = learner.init(key), []
        for _ in range(3):
            before = learner.get_meta_params(state)["log_lr"]
            state, _, _ = learner.update(state, key)
            path.append(round(float(learner.get_meta_params(state)["log_lr"] - before), 4))
        return path

    assert walk(0) == walk(0)
    assert len({*walk(0), *walk(1)}) == 6


def test_our_own_optimizers_serve_as_outer_optimizers() -> None:
    learner = GradientLearner(Vector(), SGD(1.0))
    state, _ = learner.update(learner.init(KEY), [entry(2.0)], key=KEY)
    np.testing.assert_allclose(learner.get_meta_params(state)["w"], -2.0)


def test_theta_with_integer_leaves_is_rejected() -> None:
    class Counting:
        def init(self, key: PRNGKey) -> Theta:
            return {"count": jnp.zeros((), jnp.int32)}

    with pytest.raises(TypeError, match=r"theta\['count'\] is int32\[\]"):
        GradientLearner(Counting(), optax.sgd(1.0)).init(KEY)


def test_a_worker_averages_its_estimators_by_weight() -> None:
    estimators = [example("TruncatedPES"), example("TruncatedES")]
    weights = weights_of(estimators[0])
    states = [estimator.init_worker_state(weights, KEY) for estimator in estimators]
    out = gradient_worker_compute(weights, estimators, states, KEY, with_metrics=True)
    first_key, second_key = jax.random.split(KEY)[1], jax.random.split(jax.random.split(KEY)[0])[1]
    alone = [
        estimator.compute_gradient_estimate(weights, key, state, with_summary=True)[0]
        for estimator, key, state in zip(estimators, (first_key, second_key), states, strict=True)
    ]
    total = alone[0].weight + alone[1].weight
    expected = sum(one.grad["log_lr"] * one.weight for one in alone) / total
    np.testing.assert_allclose(out.to_put.theta_grads["log_lr"], expected, rtol=1e-4)
    assert float(out.to_put.weight) == float(total)
    assert any(name.endswith("delta_loss") for name in out.metrics)


@dataclasses.dataclass(frozen=True)
class WithLoss(GradientEstimator):
    """Reports this mean loss, and zeros as the gradient."""

    loss: float

    def init_worker_state(self, worker_weights: WorkerWeights, key: PRNGKey) -> Any:
        return None

    def compute_gradient_estimate(self, worker_weights: WorkerWeights, *_: Any, **__: Any) -> Any:
        grad = jax.tree.map(jnp.zeros_like, worker_weights.theta)
        return GradientEstimatorOut(jnp.float32(self.loss), grad, None, None), {}


@pytest.mark.parametrize("loss", [np.nan, np.inf, -np.inf])
def test_a_mean_loss_that_is_not_finite_is_replaced_by_the_given_value(loss: float) -> None:
    weights = WorkerWeights({"w": jnp.zeros(3)}, None, None)
    out = gradient_worker_compute(weights, [WithLoss(loss)], [None], KEY, False, clip_nan_loss_to_value=7.0)
    assert float(out.to_put.mean_loss) == 7.0


def test_a_worker_needs_a_state_for_each_estimator() -> None:
    estimators = [example("TruncatedPES")] * 2
    with pytest.raises(ValueError, match="2 estimators and 1 unroll states"):
        gradient_worker_compute(weights_of(estimators[0]), estimators, [None], KEY, False)


def single_machine(num_lanes: int = 2) -> SingleMachineGradientLearner:
    step = VectorizedLOptTruncatedStep(
        FixedDimQuadraticFamily(3), LearnableSGD(1e-3), LogUniformLengthSchedule(5, 20), num_tasks=4
    )
    return SingleMachineGradientLearner(
        LearnableSGD(1e-3), [TruncatedPES(step, 10)] * num_lanes, optax.adam(0.1)
    )


def test_meta_training_lowers_the_loss() -> None:
    learner = single_machine()
    state, losses = learner.init(KEY), []
    for _ in range(60):
        state, loss, _ = learner.update(state, KEY)
        losses.append(float(loss))
    assert np.mean(losses[-10:]) < 0.5 * np.mean(losses[:10])


def test_the_same_key_at_every_update_does_not_repeat_the_noise() -> None:
    learner = single_machine(num_lanes=1)
    state = learner.init(KEY)
    weights = learner.learner.get_state_for_worker(state.gradient_learner_state)
    estimator = learner.gradient_estimators[0]
    first, second = (
        lanes.estimate_lane(estimator, weights, state.gradient_estimator_states[0], KEY, 0, seq)
        for seq in (1, 2)
    )
    assert not np.array_equal(first.grad["log_lr"], second.grad["log_lr"])


def test_lanes_of_equal_estimators_differ_in_their_randomness_only(caplog: pytest.LogCaptureFixture) -> None:
    learner = single_machine(num_lanes=1)
    state = learner.init(KEY)
    weights = learner.learner.get_state_for_worker(state.gradient_learner_state)
    estimator = learner.gradient_estimators[0]
    first = lanes.estimate_lane(estimator, weights, lanes.init_lane(estimator, weights, 3, 0), 3, 0, 1)
    with jax.log_compiles(), caplog.at_level(logging.WARNING):
        second = lanes.estimate_lane(estimator, weights, lanes.init_lane(estimator, weights, 3, 1), 3, 1, 1)
    assert "ompiling" not in caplog.text
    assert not np.array_equal(first.grad["log_lr"], second.grad["log_lr"])


def test_an_integer_seed_is_its_key() -> None:
    estimator = example("TruncatedPES")
    weights = weights_of(estimator)
    by_seed, by_key = (
        lanes.init_lane(estimator, weights, seed, 2)
        for seed in (4294967295, jax.random.PRNGKey(np.uint32(4294967295)))
    )
    jax.tree.map(np.testing.assert_array_equal, by_seed, by_key)


def test_an_estimate_counts_the_steps_it_cost() -> None:
    estimator = example("TruncatedPES")
    weights = weights_of(estimator)
    estimate = lanes.estimate_lane(estimator, weights, lanes.init_lane(estimator, weights, 0, 0), 0, 0, 1)
    # Ten steps of three tasks, of which each resets once (episodes of seven), for both members of a pair.
    assert int(estimate.info.inner_steps) == 2 * 3 * 9
    assert float(estimate.weight) == 3  # tasks
