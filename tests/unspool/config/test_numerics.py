"""The library computes with 64-bit types, without implicit broadcasting between ranks, and without NaNs."""

import contextlib
import dataclasses
import functools
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import optax
import pytest

from tests.unspool.outer_trainers import examples
from tests.unspool.systems import examples as systems
from tests.unspool.tasks.examples import FAMILIES, TASKS, batch_of
from unspool.lanes import LaneEstimate, estimate_lane
from unspool.learned_optimizers.base import LearnableAdam, LearnableSGDM
from unspool.learned_optimizers.mlp_lopt import MLPLOpt
from unspool.outer_trainers.gradient_estimator import GradientEstimator, WorkerWeights
from unspool.outer_trainers.gradient_learner import AggregatedGradient, GradientLearner
from unspool.outer_trainers.truncated_es_shared_noise import NRES
from unspool.outer_trainers.truncated_step import VectorizedTruncatedStep
from unspool.tasks.base import TaskFamily

pytestmark = pytest.mark.promoting  # parameters and data of several types
KEY_DATA = jnp.asarray([0, 7], jnp.uint32)


@pytest.fixture(autouse=True)
def strict_settings() -> Iterator[None]:
    with contextlib.ExitStack() as settings:
        for setting in (jax.enable_x64(True), jax.numpy_rank_promotion("raise"), jax.debug_nans(True)):
            settings.enter_context(setting)
        yield


def dtypes(tree: Any) -> list[Any]:
    return [leaf.dtype for leaf in jax.tree.leaves(tree)]


def two_estimates(estimator: GradientEstimator, weights: WorkerWeights) -> list[LaneEstimate]:
    state = examples.first_state(estimator, weights, KEY_DATA)
    first = estimate_lane(estimator, weights, state, 0, 0, 1)
    return [first, estimate_lane(estimator, weights, first.unroll_state, 0, 0, 2)]


@pytest.mark.parametrize("name", examples.ESTIMATORS)
def test_estimators_compute_with_data_of_64_bits(name: str) -> None:
    estimator = examples.example(name)
    first, second = two_estimates(estimator, examples.weights_of(estimator))
    assert dtypes(second.unroll_state) == dtypes(first.unroll_state)
    assert float(second.weight) > 0


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
@pytest.mark.parametrize("name", examples.ESTIMATORS)
def test_estimators_give_gradients_of_thetas_dtype(name: str, dtype: Any) -> None:
    estimator = examples.example(name)
    weights = examples.weights_of(estimator)
    weights = weights._replace(theta=jax.tree.map(lambda leaf: leaf.astype(dtype), weights.theta))
    first, second = jax.eval_shape(functools.partial(two_estimates, estimator), weights)
    assert dtypes(second.grad) == dtypes(weights.theta)
    assert (second.mean_loss.dtype, second.weight.dtype) == (jnp.float32, jnp.float32)
    assert dtypes(second.unroll_state) == dtypes(first.unroll_state)


@pytest.mark.parametrize("name", systems.TABLES)
def test_systems_are_unrolled(name: str) -> None:
    step = VectorizedTruncatedStep(systems.example(name), 2)
    weights = systems.weights_of(step.truncated_step)
    estimate, _ = two_estimates(NRES(step, 10, weight_by="episode"), weights)
    assert dtypes(estimate.grad) == dtypes(weights.theta)


@pytest.mark.parametrize("task", [*TASKS, *FAMILIES], ids=lambda task: type(task).__name__)
def test_tasks_have_losses_and_gradients(task: Any) -> None:
    key = jax.random.key(3)
    one = task.sample_task(key) if isinstance(task, TaskFamily) else task
    params = one.init(key)
    loss, grad = jax.jit(jax.value_and_grad(one.loss))(params, key, batch_of(task))
    assert dtypes(grad) == dtypes(params)
    assert jnp.isfinite(one.normalizer(loss))


@pytest.mark.parametrize(
    "learned_opt", [LearnableSGDM(), LearnableAdam(), MLPLOpt()], ids=lambda opt: opt.name
)
def test_learned_optimizers_keep_the_dtypes_of_params(learned_opt: Any) -> None:
    theta = learned_opt.init(jax.random.key(0))
    assert {str(dtype) for dtype in dtypes(theta)} == {"float32"}
    shapes = {"float64": (3, 2), "float32": (2,), "bfloat16": ()}
    params = {dtype: jnp.ones(shape, dtype) for dtype, shape in shapes.items()}
    opt = learned_opt.opt_fn(theta)
    state = opt.init(params, num_steps=4)
    for _ in range(2):
        state = jax.jit(opt.update)(state, jax.tree.map(jnp.ones_like, params), jnp.float32(1.0))
    assert dtypes(opt.get_params(state)) == dtypes(params)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_the_outer_optimizer_keeps_thetas_dtype(dtype: Any) -> None:
    @dataclasses.dataclass(frozen=True)
    class Init:
        def init(self, key: Any) -> Any:
            return {"w": jnp.ones(3, dtype)}

    learner = GradientLearner(Init(), optax.adam(0.1))
    state = learner.init(KEY_DATA)
    entry = AggregatedGradient({"w": jnp.ones(3, dtype)}, None, jnp.float32(0), jnp.float32(2))
    state, metrics = learner.update(state, [entry, entry])
    assert learner.get_meta_params(state)["w"].dtype == dtype
    assert int(metrics["applied"]) == 1
