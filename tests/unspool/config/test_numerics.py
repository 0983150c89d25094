"""The library computes with 64-bit types, without implicit broadcasting between ranks, and without NaNs."""

import contextlib
import dataclasses
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import optax
import pytest

from tests.unspool.outer_trainers import examples
from tests.unspool.systems import examples as systems
from tests.unspool.tasks.examples import FAMILIES, TASKS, batch_of
from unspool.lanes import estimate_lane
from unspool.learned_optimizers.base import LearnableAdam, LearnableSGDM
from unspool.learned_optimizers.mlp_lopt import MLPLOpt
from unspool.outer_trainers.gradient_learner import AggregatedGradient, GradientLearner
from unspool.outer_trainers.truncated_es_shared_noise import NRES
from unspool.outer_trainers.truncated_pes import TruncatedPES
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


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
@pytest.mark.parametrize("name", examples.ESTIMATORS)
def test_estimators_give_gradients_of_thetas_dtype(name: str, dtype: Any) -> None:
    estimator = examples.example(name)
    weights = examples.weights_of(estimator)
    weights = weights._replace(theta=jax.tree.map(lambda leaf: leaf.astype(dtype), weights.theta))
    estimate = estimate_lane(estimator, weights, examples.first_state(estimator, weights, KEY_DATA), 0, 0, 1)
    again = estimate_lane(estimator, weights, estimate.unroll_state, 0, 0, 2)
    assert dtypes(again.grad) == dtypes(weights.theta)
    assert (again.mean_loss.dtype, again.weight.dtype) == (jnp.float32, jnp.float32)
    assert dtypes(again.unroll_state) == dtypes(estimate.unroll_state)
    assert float(again.weight) > 0


@pytest.mark.parametrize("name", systems.TABLES)
def test_systems_are_unrolled(name: str) -> None:
    step = VectorizedTruncatedStep(systems.example(name), 2)
    for estimator in (TruncatedPES(step, 10), NRES(step, 10, weight_by="episode")):
        weights = systems.weights_of(step.truncated_step)
        state = examples.first_state(estimator, weights, KEY_DATA)
        assert dtypes(estimate_lane(estimator, weights, state, 0, 0, 1).grad) == dtypes(weights.theta)


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
