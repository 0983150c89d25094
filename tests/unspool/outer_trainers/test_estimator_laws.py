"""What holds for every gradient estimator."""

import dataclasses
import logging
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.unspool.outer_trainers.examples import (
    ANTITHETIC,
    ESTIMATORS,
    EVOLUTION_STRATEGIES,
    JITTED_IN_PIECES,
    NUM_TASKS,
    example,
    first_state,
    learned_optimizer_step,
    weights_of,
)
from unspool.outer_trainers.full_es import FullES
from unspool.outer_trainers.truncated_es import TruncatedES
from unspool.outer_trainers.truncated_es_shared_noise import TruncatedESSharedNoise
from unspool.outer_trainers.truncated_pes import TruncatedPES
from unspool.outer_trainers.truncation_schedule import ConstantTruncationSchedule
from unspool.tasks.base import Task, TaskFamily
from unspool.types import Batch, Params, PRNGKey, TaskParams


def shapes(tree: Any) -> Any:
    return jax.tree.map(lambda leaf: (jnp.shape(leaf), jnp.result_type(leaf)), tree)


def estimates(estimator: Any, count: int, seed: int = 0) -> list[Any]:
    weights = weights_of(estimator)
    keys = jax.random.split(jax.random.PRNGKey(seed), count + 1)
    state, outs = first_state(estimator, weights, keys[0]), []
    for key in keys[1:]:
        out, _ = estimator.compute_gradient_estimate(weights, key, state)
        outs.append(out)
        state = out.unroll_state
    return outs


@pytest.mark.parametrize("name", ESTIMATORS)
def test_the_state_is_a_fixed_point_of_shapes_and_types(name: str) -> None:
    estimator = example(name)
    state = first_state(estimator, weights_of(estimator), jax.random.PRNGKey(0))
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
    state = first_state(estimator, weights, keys[0])
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


@pytest.mark.parametrize("name", JITTED_IN_PIECES)
def test_the_estimate_does_not_depend_on_steps_per_jit(name: str) -> None:
    step = learned_optimizer_step(name)
    in_pieces = (JITTED_IN_PIECES[name](step, steps_per_jit=steps) for steps in (2, 10))
    one, other = (estimates(estimator, 3)[-1] for estimator in in_pieces)
    jax.tree.map(np.testing.assert_array_equal, one.grad, other.grad)


@pytest.mark.parametrize("name", ANTITHETIC)
def test_stacked_pairs_give_what_sequential_ones_give(name: str) -> None:
    stacked, sequential = (estimates(example(name, stack_antithetic_samples=s), 3) for s in (True, False))
    for one, other in zip(stacked, sequential, strict=True):
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-2, atol=1e-4), one.grad, other.grad
        )


@pytest.mark.parametrize("name", ESTIMATORS)
def test_an_estimator_can_be_made_from_the_parts_of_a_learned_optimizers_step(name: str) -> None:
    by_hand = example(name)
    step: Any = by_hand.truncated_step
    parts = {"task_family": step.task_family, "learned_opt": step.learned_opt, "num_tasks": NUM_TASKS}
    schedule = getattr(by_hand, "truncation_schedule", step.trunc_sched)
    of_estimator = {
        field.name: getattr(by_hand, field.name)
        for field in dataclasses.fields(by_hand)
        if field.name not in ("truncated_step", "truncation_schedule")
    }
    made = type(by_hand).for_learned_optimizer(**parts, trunc_sched=schedule, **of_estimator)
    assert made == by_hand
    assert type(by_hand)(**parts, trunc_sched=schedule, **of_estimator) == by_hand


@pytest.mark.parametrize("name", ESTIMATORS)
def test_new_style_keys_give_an_estimate_of_the_same_form(name: str) -> None:
    """Only traced: a key of the wrong style is an error of types."""
    estimator = example(name)
    weights = weights_of(estimator)

    def estimate(key: PRNGKey) -> Any:
        state = estimator.init_worker_state(weights, key)
        return estimator.estimate(weights, key, state, estimator.get_data(), False)[0]

    old, new = (jax.eval_shape(estimate, make(1)) for make in (jax.random.PRNGKey, jax.random.key))
    assert shapes(new._replace(unroll_state=None)) == shapes(old._replace(unroll_state=None))
    assert jax.tree.structure(new) == jax.tree.structure(old)


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


NAN = float("nan")  # one object: estimators must be equal to share a program, and NaN is equal to itself only


class PoisonedTask(Task):
    """A quadratic; for the tasks that drew the poison its loss is multiplied with `factor`."""

    def __init__(self, poison: jax.Array, factor: float) -> None:
        self.poison, self.factor = poison, factor

    def init(self, key: PRNGKey) -> Params:
        return jax.random.normal(key, (4,))

    def loss(self, params: Params, key: PRNGKey, data: Batch) -> jax.Array:
        return jnp.sum(params**2) * jnp.where(self.poison > 0, self.factor, 1.0)


@dataclasses.dataclass(frozen=True)
class PoisonedFamily(TaskFamily):
    """Tasks of which some diverge at once, or are flat if `factor` is zero."""

    threshold: float
    factor: float = NAN

    def sample(self, key: PRNGKey) -> TaskParams:
        return jax.random.normal(key, ()) - self.threshold

    def task_fn(self, task_params: TaskParams) -> Task:
        return PoisonedTask(task_params, self.factor)


def poisoned_estimate(name: str, seed: int, factor: float = NAN) -> tuple[Any, Any]:
    family = PoisonedFamily(0.0, factor)
    # No episode ends within the estimate, so that the same tasks are poisoned all along.
    estimator = ESTIMATORS[name](learned_optimizer_step(name, family, ConstantTruncationSchedule(100)))
    weights = weights_of(estimator)
    init_key, key = jax.random.split(jax.random.PRNGKey(seed))
    return estimator.compute_gradient_estimate(weights, key, first_state(estimator, weights, init_key))


def seed_with(name: str, diverged_tasks: int) -> int:
    """Return a seed under which so many tasks draw the poison."""
    found = (seed for seed in range(99) if poisoned_estimate(name, seed)[0].diverged_tasks == diverged_tasks)
    return next(found)


@pytest.mark.parametrize("name", ESTIMATORS)
def test_a_diverged_task_changes_no_other_contribution_and_is_counted(name: str) -> None:
    """A flat task contributes nothing but its weight; a diverged one in its place not even that."""
    seed = seed_with(name, diverged_tasks=1)
    diverged, metrics = poisoned_estimate(name, seed)
    flat, _ = poisoned_estimate(name, seed, 0.0)
    assert int(metrics["diverged_tasks"]) == 1
    assert float(diverged.weight) == pytest.approx(float(flat.weight) * (NUM_TASKS - 1) / NUM_TASKS)
    jax.tree.map(
        lambda one, other: np.testing.assert_allclose(
            one * diverged.weight, other * flat.weight, rtol=1e-4, atol=1e-5
        ),
        diverged.grad,
        flat.grad,
    )
    assert np.any(np.asarray(diverged.grad["log_lr"]) != 0)


@pytest.mark.parametrize("name", ESTIMATORS)
def test_an_estimate_of_diverged_tasks_only_weighs_nothing(name: str) -> None:
    out, _ = poisoned_estimate(name, seed_with(name, diverged_tasks=NUM_TASKS))
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
        ({"clip_loss_diff": -1.0}, "clip_loss_diff=-1.0"),
        ({"sign_delta_loss_scalar": 0.0}, "sign_delta_loss_scalar=0.0"),
        ({"std": {}}, "every std must be positive"),
        ({"std": {"log_lr": 0.0}}, "log_lr.*every std must be positive"),
        ({"perturbation": "uniform"}, "perturbation='uniform'"),
        ({"pairs_per_task": 0}, "pairs_per_task=0"),
        ({"pairs_per_task": 1, "orthogonal": True}, "orthogonal=True"),
        ({"pairs_per_task": 2, "orthogonal": True, "perturbation": "rademacher"}, "gaussian or sphere"),
    ],
)
def test_impossible_options_are_rejected_by_name(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        example(name, **options)


@pytest.mark.parametrize("name", [name for name in JITTED_IN_PIECES if name != "FullES"])
def test_steps_per_jit_forbids_no_length_and_belongs_to_no_program(name: str) -> None:
    step = learned_optimizer_step(name)
    assert JITTED_IN_PIECES[name](step, steps_per_jit=3) == JITTED_IN_PIECES[name](step)
    with pytest.raises(ValueError, match="steps_per_jit must be at least 1"):
        JITTED_IN_PIECES[name](step, steps_per_jit=0)


def test_the_first_arguments_have_the_places_that_code_written_for_the_tutorials_gives_them() -> None:
    step, whole = learned_optimizer_step("TruncatedPES"), learned_optimizer_step("FullES")
    length = ConstantTruncationSchedule(20)
    assert FullES(whole, length, 0.5, 4, "min", 7) == FullES(
        truncated_step=whole,
        truncation_schedule=length,
        std=0.5,
        steps_per_jit=4,
        loss_type="min",
        recompute_samples=7,
    )
    pes, es = TruncatedPES(step, 7, 0.5, 4), TruncatedES(step, 7, 4, 0.5)
    assert (pes.trunc_length, pes.std, pes.steps_per_jit) == (7, 0.5, 4)
    assert (es.unroll_length, es.std, es.steps_per_jit) == (7, 0.5, 4)
    assert TruncatedESSharedNoise(step, 7, 0.5) == TruncatedESSharedNoise(step, unroll_length=7, std=0.5)


@pytest.mark.parametrize("name", ANTITHETIC)
def test_clipping_needs_a_bound(name: str) -> None:
    with pytest.raises(ValueError, match="set clip_loss_diff"):
        example(name, divergence="clip")


@pytest.mark.parametrize(("std", "leaf"), [({"lr": 0.1}, "lr"), ({"log_lr": 0.1}, "log_epsilon")])
def test_stds_must_be_for_leaves_of_theta_and_for_all_of_them(std: dict[str, float], leaf: str) -> None:
    with pytest.raises(ValueError, match=leaf):
        estimates(example("TruncatedPES", std=std), 1)


@pytest.mark.parametrize("name", ESTIMATORS)
def test_a_step_that_is_not_vectorized_is_rejected(name: str) -> None:
    with pytest.raises(TypeError, match="VectorizedTruncatedStep"):
        ESTIMATORS[name]("not a step")
