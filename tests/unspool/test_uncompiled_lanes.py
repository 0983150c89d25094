"""Results of estimators that run user code are checked and completed."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from unspool import uncompiled_lanes
from unspool.device_mesh import task_mesh
from unspool.outer_trainers.gradient_estimator import GradientEstimator, GradientEstimatorOut, WorkerWeights
from unspool.types import PRNGKey

WEIGHTS = WorkerWeights({"a": jnp.float32(1.0), "b": jnp.zeros(2)}, None, None)
GRADIENT = {"a": jnp.float32(2.0), "b": jnp.ones(2)}


class Returning(GradientEstimator):
    """Returns what its constructor was given, with the state as its only number."""

    def __init__(self, out: Any) -> None:
        self.out = out

    def init_worker_state(self, worker_weights: WorkerWeights, key: PRNGKey) -> Any:
        return {"count": 3, "key": key, "a": worker_weights.theta["a"]}

    def compute_gradient_estimate(self, *args: Any, **kwargs: Any) -> Any:
        return self.out, {}


def estimated(out: Any) -> GradientEstimatorOut:
    return uncompiled_lanes.estimated(Returning(out), WEIGHTS, None, jax.random.PRNGKey(0))


def test_numbers_become_arrays_of_the_types_that_messages_have() -> None:
    out = estimated(GradientEstimatorOut(mean_loss=2, grad=GRADIENT, unroll_state={"n": 3}, unroll_info=None))
    numbers = (out.mean_loss, out.weight, out.diverged_tasks, out.inner_steps, out.unroll_state["n"])
    assert [(float(one), str(one.dtype)) for one in numbers] == [
        (2.0, "float32"),
        (1.0, "float32"),
        (0.0, "int32"),
        (0.0, "int32"),
        (3.0, "int32"),
    ]


@pytest.mark.parametrize(
    "grad",
    [
        {"a": jnp.float32(2.0)},
        {"a": jnp.float32(2.0), "b": jnp.ones(3)},
        {"a": jnp.int32(2), "b": jnp.ones(2)},
        [jnp.float32(2.0), jnp.ones(2)],
    ],
)
def test_a_gradient_of_another_form_than_theta_is_rejected(grad: Any) -> None:
    with pytest.raises(TypeError, match=r"Returning: its gradient has shapes .* and theta"):
        estimated(GradientEstimatorOut(2.0, grad, None, None))


def test_another_type_than_an_estimate_is_rejected() -> None:
    with pytest.raises(TypeError, match=r"Returning.compute_gradient_estimate returned a dict and metrics"):
        estimated({"grad": GRADIENT})


def test_a_gradient_of_numpy_arrays_is_accepted() -> None:
    out = estimated(GradientEstimatorOut(2.0, jax.tree.map(np.asarray, GRADIENT), None, None))
    assert isinstance(out.grad["b"], jax.Array)


def test_the_shape_of_a_state_is_that_of_a_state_made_from_shapes_alone() -> None:
    estimator = Returning(None)
    shapes = uncompiled_lanes.state_shape(estimator, jax.eval_shape(lambda: WEIGHTS))
    state = uncompiled_lanes.initial_state(estimator, WEIGHTS, jax.random.PRNGKey(0))
    assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), shapes) == jax.tree.map(
        lambda leaf: (leaf.shape, leaf.dtype), state
    )


def test_several_devices_are_rejected() -> None:
    uncompiled_lanes.check_one_device(Returning(None), None)
    with pytest.raises(ValueError, match=r"Returning defines .* set workers.devices = 1, or mesh=None"):
        uncompiled_lanes.check_one_device(Returning(None), task_mesh(jax.devices()[:1]))
