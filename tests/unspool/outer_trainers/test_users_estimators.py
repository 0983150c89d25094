"""Estimators that users write to the tutorials' abstract class: two methods, and nothing compiled."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from unspool import lanes
from unspool.device_mesh import task_mesh
from unspool.experiment import Experiment
from unspool.learned_optimizers.base import LearnableSGD
from unspool.outer_trainers.gradient_learner import (
    GradientEstimator,
    GradientEstimatorOut,
    SingleMachineGradientLearner,
    WorkerWeights,
    gradient_worker_compute,
)

KEY = jax.random.PRNGKey(0)


class Pull(GradientEstimator):
    """Pulls theta towards zero; counts its calls in Python, so it cannot be traced."""

    def __init__(self, strength: float = 1.0) -> None:
        self.strength = strength
        self.calls = 0

    def init_worker_state(self, worker_weights: WorkerWeights, key: Any) -> Any:
        return 0

    def compute_gradient_estimate(  # type: ignore[override]  # as the tutorials have it
        self, worker_weights: WorkerWeights, key: Any, state: Any, with_summary: bool
    ) -> Any:
        self.calls += 1
        loss = float(sum(np.sum(np.square(leaf)) for leaf in jax.tree.leaves(worker_weights.theta)))
        grad = jax.tree.map(lambda leaf: 2 * self.strength * leaf, worker_weights.theta)
        return GradientEstimatorOut(mean_loss=loss, grad=grad, unroll_state=state + 1, unroll_info=None), {}


def test_a_learner_in_one_process_trains_with_it() -> None:
    estimator = Pull()
    learner = SingleMachineGradientLearner(LearnableSGD(0.5), [estimator], optax.sgd(0.25))
    state = learner.init(KEY)
    before = learner.get_meta_params(state)["log_lr"]
    for _ in range(3):
        state, loss, metrics = learner.update(state, KEY)
    np.testing.assert_allclose(learner.get_meta_params(state)["log_lr"], before / 8, rtol=1e-6)
    np.testing.assert_allclose(loss, (before / 4) ** 2, rtol=1e-6)
    assert (estimator.calls, int(state.gradient_estimator_states[0]), int(metrics["used"])) == (3, 3, 1)


def test_a_worker_averages_it_with_weight_one() -> None:
    weights = WorkerWeights({"a": jnp.float32(1.0)}, None, None)
    out = gradient_worker_compute(weights, [Pull(1.0), Pull(2.0)], [0, 0], KEY, False)
    assert float(out.to_put.theta_grads["a"]) == 3.0
    assert float(out.to_put.weight) == 2.0


def test_a_lane_has_arrays_where_it_gave_numbers() -> None:
    weights = WorkerWeights({"a": jnp.float32(2.0)}, None, None)
    estimator = Pull()
    shape = lanes.lane_state_shape(estimator, weights)
    estimate = lanes.estimate_lane(estimator, weights, lanes.init_lane(estimator, weights, 0, 0), 0, 0, 1)
    assert (shape.shape, shape.dtype) == (estimate.unroll_state.shape, estimate.unroll_state.dtype)
    assert (float(estimate.mean_loss), float(estimate.weight), int(estimate.info.inner_steps)) == (4, 1, 0)
    assert float(estimate.info.inner_step_mean) == 0


def test_several_devices_are_rejected_by_name() -> None:
    weights = WorkerWeights({"a": jnp.float32(2.0)}, None, None)
    with pytest.raises(ValueError, match=r"Pull defines compute_gradient_estimate itself"):
        lanes.init_lane(Pull(), weights, 0, 0, task_mesh(jax.devices()[:1]))


def test_a_gradient_that_is_not_like_theta_is_rejected() -> None:
    class Wrong(Pull):
        def compute_gradient_estimate(self, *args: Any) -> Any:
            out, metrics = super().compute_gradient_estimate(*args)
            return out._replace(grad={"a": jnp.zeros(2)}), metrics

    weights = WorkerWeights({"a": jnp.float32(2.0)}, None, None)
    with pytest.raises(TypeError, match="Wrong: its gradient has shapes"):
        lanes.estimate_lane(Wrong(), weights, jnp.int32(0), 0, 0, 1)


def test_an_estimator_without_an_estimate_is_rejected() -> None:
    class Nothing(GradientEstimator):
        def init_worker_state(self, worker_weights: WorkerWeights, key: Any) -> Any:
            return 0

    with pytest.raises(TypeError, match="Nothing: a gradient estimator defines compute_gradient_estimate"):
        Nothing()


def test_a_configuration_names_it() -> None:
    experiment = Experiment.from_toml(
        """
seed = 0
outer_steps = 1
[learned_optimizer]
type = "LearnableSGD"
[outer_optimizer]
type = "sgd"
learning_rate = 0.1
[aggregation]
lanes = 1
[[estimators]]
type = "tests.unspool.outer_trainers.test_users_estimators:Pull"
strength = 0.5
"""
    )
    experiment.check()
    estimator: Any = experiment.estimator(0)
    assert estimator.strength == 0.5
