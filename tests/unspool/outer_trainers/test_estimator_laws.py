"""What holds for every gradient estimator."""

import dataclasses
import logging
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.unspool.outer_trainers.examples import (
    ESTIMATORS,
    EVOLUTION_STRATEGIES,
    NUM_TASKS,
    TRUNCATED,
    example,
    learned_optimizer_step,
    weights_of,
)
from unspool.tasks.base import Task, TaskFamily
from unspool.types import Batch, Params, PRNGKey, TaskParams


def shapes(tree: Any) -> Any:
    return jax.tree.map(lambda leaf: (jnp.shape(leaf), jnp.result_type(leaf)), tree)


def estimates(estimator: Any, count: int, seed: int = 0) -> list[Any]:
    weights = weights_of(estimator)
    keys = jax.random.split(jax.random.PRNGKey(seed), count + 1)
    state, outs = estimator.init_worker_state(weights, keys[0]), []
    for key in keys[1:]:
        out, _ = estimator.compute_gradient_estimate(weights, key, state)
        outs.append(out)
        state = out.unroll_state
    return outs


@pytest.mark.parametrize("name", ESTIMATORS)
def test_the_state_is_a_fixed_point_of_shapes_and_types(name: str) -> None:
    estimator = example(name)
    state = estimator.init_worker_state(weights_of(estimator), jax.random.PRNGKey(0))
    assert shapes(estimates(estimator, 2)[-1].unroll_state) == shapes(state)


@pytest.mark.parametrize("name", ESTIMATORS)
def test_an_estimate_is_finite_and_shaped_like_theta(name: str) -> None:
    out = estimates(example(name), 1)[0]
    assert shapes(out.grad) == shapes(weights_of(example(name)).theta)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(out.grad))


@pytest.mark.parametrize("name", ESTIMATORS)
def test_the_same_key_gives_the_same_bits(name: str) -> None:
    first, second = (estimates(example(name), 3)[-1] for _ in range(2))
    jax.tree.map(np.testing.assert_array_equal, first, second)


@pytest.mark.parametrize("name", ESTIMATORS)
def test_nothing_is_compiled_again_in_steady_state(name: str, caplog: pytest.LogCaptureFixture) -> None:
    estimator = example(name)
    weights = weights_of(estimator)
    keys = list(jax.random.split(jax.random.PRNGKey(0), 102))
    state = estimator.init_worker_state(weights, keys[0])
    state = estimator.compute_gradient_estimate(weights, keys[1], state)[0].unroll_state
    with jax.log_compiles(), caplog.at_level(logging.WARNING):
        for key in keys[2:]:
            state = estimator.compute_gradient_estimate(weights, key, state)[0].unroll_state
    assert [record.message for record in caplog.records if "ompiling" in record.message] == []


@pytest.mark.parametrize("name", ESTIMATORS)
def test_equal_configurations_share_a_program(name: str, caplog: pytest.LogCaptureFixture) -> None:
    estimates(example(name), 1)
    with jax.log_compiles(), caplog.at_level(logging.WARNING):
        estimates(example(name), 1)
    assert "_compiled_estimate" not in caplog.text


@pytest.mark.parametrize("name", TRUNCATED)
def test_the_estimate_does_not_depend_on_steps_per_jit(name: str) -> None:
    one, other = (estimates(example(name, steps_per_jit=steps), 3)[-1] for steps in (2, 10))
    jax.tree.map(np.testing.assert_array_equal, one.grad, other.grad)


@pytest.mark.parametrize("name", EVOLUTION_STRATEGIES)
def test_stacked_pairs_give_what_sequential_ones_give(name: str) -> None:
    stacked, sequential = (estimates(example(name, stack_antithetic_samples=s), 3) for s in (True, False))
    for one, other in zip(stacked, sequential, strict=True):
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-2, atol=1e-4), one.grad, other.grad
        )


@pytest.mark.parametrize("name", ESTIMATORS)
def test_new_style_keys_work(name: str) -> None:
    estimator = example(name)
    weights = weights_of(estimator)
    state = estimator.init_worker_state(weights, jax.random.key(0))
    out, _ = estimator.compute_gradient_estimate(weights, jax.random.key(1), state)
    assert np.isfinite(out.mean_loss)


@dataclasses.dataclass(frozen=True)
class EvenFamily(TaskFamily):
    """Losses that do not depend on the parameters, hence not on theta: an even function of the
    perturbation."""

    def sample(self, key: PRNGKey) -> TaskParams:
        return jnp.zeros(())

    def task_fn(self, task_params: TaskParams) -> Task:
        return ConstantTask()


class ConstantTask(Task):
    def init(self, key: PRNGKey) -> Params:
        return jnp.zeros(2)

    def loss(self, params: Params, key: PRNGKey, data: Batch) -> jax.Array:
        return jax.random.normal(key, ()) + 0 * jnp.sum(params)


@pytest.mark.parametrize("name", EVOLUTION_STRATEGIES)
def test_antithetic_noise_cancels_where_theta_does_not_matter(name: str) -> None:
    estimator = ESTIMATORS[name](learned_optimizer_step(name, EvenFamily()))
    assert all(np.all(leaf == 0) for out in estimates(estimator, 2) for leaf in jax.tree.leaves(out.grad))


class PoisonedTask(Task):
    """A quadratic, or NaN for the tasks that drew the poison."""

    def __init__(self, poison: jax.Array) -> None:
        self.poison = poison

    def init(self, key: PRNGKey) -> Params:
        return jax.random.normal(key, (4,))

    def loss(self, params: Params, key: PRNGKey, data: Batch) -> jax.Array:
        return jnp.sum(params**2) * jnp.where(self.poison > 0, jnp.nan, 1.0)


@dataclasses.dataclass(frozen=True)
class PoisonedFamily(TaskFamily):
    """Tasks of which some diverge at once."""

    threshold: float

    def sample(self, key: PRNGKey) -> TaskParams:
        return jax.random.normal(key, ()) - self.threshold

    def task_fn(self, task_params: TaskParams) -> Task:
        return PoisonedTask(task_params)


@pytest.mark.parametrize("name", ESTIMATORS)
def test_a_diverged_task_is_left_out_and_counted(name: str) -> None:
    poisoned = ESTIMATORS[name](learned_optimizer_step(name, PoisonedFamily(0.0)))
    weights = weights_of(poisoned)
    key = next(
        k for k in jax.random.split(jax.random.PRNGKey(0), 50) if num_poisoned(poisoned, weights, k) == 1
    )
    state = poisoned.init_worker_state(weights, key)
    out, metrics = poisoned.compute_gradient_estimate(weights, key, state)
    assert int(metrics["diverged_tasks"]) == 1
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((out.grad, out.mean_loss)))
    assert np.any(np.asarray(out.grad["log_lr"]) != 0)


def num_poisoned(estimator: Any, weights: Any, key: jax.Array) -> int:
    """How many of the tasks are poisoned in the first truncation, before any reset."""
    state = estimator.init_worker_state(weights, key)
    out, _ = estimator.compute_gradient_estimate(weights, key, state)
    return int(out.diverged_tasks)


@pytest.mark.parametrize("name", ESTIMATORS)
def test_an_estimate_of_diverged_tasks_only_weighs_nothing(name: str) -> None:
    out = estimates(ESTIMATORS[name](learned_optimizer_step(name, PoisonedFamily(-1e6))), 1)[0]
    assert int(out.diverged_tasks) == NUM_TASKS
    assert float(out.weight) == 0
    assert all(np.all(leaf == 0) for leaf in jax.tree.leaves(out.grad))


@pytest.mark.parametrize("name", ESTIMATORS)
def test_the_fail_policy_lets_what_is_not_finite_through(name: str) -> None:
    estimator = ESTIMATORS[name](learned_optimizer_step(name, PoisonedFamily(-1e6)), divergence="fail")
    out = estimates(estimator, 1)[0]
    assert not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(out.grad))


@pytest.mark.parametrize("name", EVOLUTION_STRATEGIES)
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"std": 0.0}, "std=0.0"),
        ({"std": -1.0}, "std must be positive"),
        ({"divergence": "ignore"}, "divergence='ignore'"),
        ({"divergence": "clip"}, "set clip_loss_diff"),
        ({"clip_loss_diff": -1.0}, "clip_loss_diff=-1.0"),
        ({"steps_per_jit": 0}, "steps_per_jit=0"),
    ],
)
def test_impossible_options_are_refused_by_name(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        example(name, **options)


@pytest.mark.parametrize("name", TRUNCATED)
def test_a_truncation_must_be_a_multiple_of_steps_per_jit(name: str) -> None:
    with pytest.raises(ValueError, match="must be a multiple of steps_per_jit"):
        example(name, steps_per_jit=3)


@pytest.mark.parametrize("name", ESTIMATORS)
def test_a_step_that_is_not_vectorized_is_refused(name: str) -> None:
    with pytest.raises(TypeError, match="VectorizedTruncatedStep"):
        ESTIMATORS[name]("not a step")
