"""A step that is computed and thrown away does not spoil a gradient: zero times an infinite derivative."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from unspool.learned_optimizers.base import LearnedOptimizer
from unspool.optimizers.optax_opts import OptaxOptimizer
from unspool.optimizers.optimizer import Optimizer
from unspool.outer_trainers.dodge import DODGE
from unspool.outer_trainers.full_grad import FullGrad
from unspool.outer_trainers.gradient_estimator import OuterState, WorkerWeights
from unspool.outer_trainers.lopt_truncated_step import SimpleVecLOptTruncatedStep, VectorizedLOptTruncatedStep
from unspool.outer_trainers.truncated_grad import TruncatedGrad
from unspool.outer_trainers.truncated_step import TruncatedStep, TruncatedUnrollOut, VectorizedTruncatedStep
from unspool.outer_trainers.truncation_schedule import ConstantTruncationSchedule
from unspool.tasks.base import Task, single_task_to_family
from unspool.types import Batch, Params, PRNGKey, Theta

LENGTH = 10
KEY = jax.random.PRNGKey(0)


@dataclasses.dataclass(frozen=True)
class Decayed(TruncatedStep):
    """Gradient descent on `x^2 / 2` from `1 + start` with the step size `0.1 (1 - t/T)^a`, whose derivative
    is not finite at t = T.

    Attributes:
        done_on_reset: convention (b) in place of (a).
        diverges: the last loss has no finite derivative.
    """

    done_on_reset: bool = False
    diverges: bool = False

    def outer_init(self, key: PRNGKey) -> Theta:
        return {"a": jnp.float32(1.0), "start": jnp.float32(0.0)}

    def init_step_state(self, theta: Theta, outer_state: Any, key: PRNGKey) -> Any:
        return 1.0 + jnp.asarray(theta["start"]), jnp.int32(0), jnp.bool_(False)

    def unroll_step(
        self, theta: Theta, unroll_state: Any, key: PRNGKey, data: Batch, outer_state: Any
    ) -> tuple[Any, TruncatedUnrollOut]:
        x, step, resets = unroll_state
        size = 0.1 * jnp.exp(theta["a"] * jnp.log(1 - step / LENGTH))
        moved = (x - size * x, step + 1, step + 1 >= LENGTH)
        start = self.init_step_state(theta, outer_state, key)
        state = jax.tree.map(lambda new, old: jnp.where(resets, new, old), start, moved)
        loss = moved[0] ** 2 / 2
        if self.diverges:
            loss = loss + jnp.sqrt(jnp.where(step == LENGTH - 1, 0.0, 1.0) * theta["a"])
        is_done = resets if self.done_on_reset else state[2]
        return state, TruncatedUnrollOut(jnp.where(resets, 0.0, loss), is_done, (), state[1], ~resets)


def mean_loss(theta: Theta, steps: int = LENGTH) -> jax.Array:
    """Of the first steps of an episode."""
    x, losses = 1.0 + theta["start"], []
    for step in range(steps):
        x = x - 0.1 * (1 - step / LENGTH) ** theta["a"] * x
        losses.append(x**2 / 2)
    return jnp.mean(jnp.stack(losses))


THETA = {"a": jnp.float32(1.0), "start": jnp.float32(0.0)}
WEIGHTS = WorkerWeights(THETA, None, OuterState(jnp.int32(0)))
EXACT = jax.grad(mean_loss)(THETA)


def test_the_exact_gradient_is_that_of_the_closed_form() -> None:
    assert float(EXACT["a"]) == pytest.approx(0.042573642, rel=1e-5)


@pytest.mark.parametrize("done_on_reset", [False, True])
@pytest.mark.parametrize(
    "make",
    [
        lambda step: FullGrad(step, ConstantTruncationSchedule(LENGTH)),
        lambda step: TruncatedGrad(step, LENGTH),
        lambda step: TruncatedGrad(step, LENGTH + 1, 1),
        lambda step: FullGrad(step, ConstantTruncationSchedule(LENGTH + 1)),
    ],
)
def test_resets_and_steps_after_the_end_do_not_change_the_gradient(make: Any, done_on_reset: bool) -> None:
    estimator = make(VectorizedTruncatedStep(Decayed(done_on_reset), 2))
    state = estimator.init_worker_state(WEIGHTS, KEY)
    out, _ = estimator.compute_gradient_estimate(WEIGHTS, KEY, state)
    assert (float(out.weight), int(out.diverged_tasks), int(out.inner_steps)) == (2, 0, 2 * LENGTH)
    np.testing.assert_allclose(out.grad["a"], EXACT["a"], rtol=1e-5)


def test_a_vmapped_estimate_of_whole_episodes_is_the_same() -> None:
    estimator = FullGrad(VectorizedTruncatedStep(Decayed(), 1), ConstantTruncationSchedule(LENGTH))

    def gradient(a: jax.Array) -> jax.Array:
        weights = WEIGHTS._replace(theta={**THETA, "a": a})
        state = estimator.init_worker_state(weights, KEY)
        return jnp.asarray(estimator.estimate(weights, KEY, state, estimator.get_data(), False)[0].grad["a"])

    np.testing.assert_allclose(jax.vmap(gradient)(jnp.ones(2)), np.full(2, EXACT["a"]), rtol=1e-5)


def test_the_initial_state_after_a_reset_depends_on_theta() -> None:
    """Another leaf of theta than the one whose derivative is not finite at the reset."""
    steps = 4
    estimator = TruncatedGrad(VectorizedTruncatedStep(Decayed(), 2), LENGTH + 1 + steps, 1)
    state = estimator.init_worker_state(WEIGHTS, KEY)
    out, _ = estimator.compute_gradient_estimate(WEIGHTS, KEY, state)

    def both(theta: Theta) -> jax.Array:
        # The first state is not differentiated.
        first = mean_loss({**theta, "start": jnp.float32(0.0)})
        return (LENGTH * first + steps * mean_loss(theta, steps)) / (LENGTH + steps)

    exact = jax.grad(both)(THETA)
    for leaf, value in exact.items():
        np.testing.assert_allclose(out.grad[leaf], value, rtol=1e-5)


@pytest.mark.parametrize(
    "make",
    [
        lambda step: TruncatedGrad(step, LENGTH + 1, 1),
        lambda step: FullGrad(step, ConstantTruncationSchedule(LENGTH)),
    ],
)
def test_a_derivative_that_is_not_finite_in_a_step_that_counts_is_still_seen(make: Any) -> None:
    estimator = make(VectorizedTruncatedStep(Decayed(diverges=True), 2))
    state = estimator.init_worker_state(WEIGHTS, KEY)
    out, _ = estimator.compute_gradient_estimate(WEIGHTS, KEY, state)
    assert (float(out.weight), int(out.diverged_tasks)) == (0, 2)


class Bowl(Task):
    """`x^2 / 2` from 1."""

    def init(self, key: PRNGKey) -> Params:
        return jnp.ones(())

    def loss(self, params: Params, key: PRNGKey, data: Batch) -> jax.Array:
        return jnp.asarray(params) ** 2 / 2


@dataclasses.dataclass(frozen=True)
class DecayedSGD(LearnedOptimizer):
    """The step size of `Decayed`."""

    def init(self, key: PRNGKey) -> Theta:
        return {"a": jnp.float32(1.0)}

    def opt_fn(self, theta: Theta, is_training: bool = False) -> Optimizer:
        return OptaxOptimizer(optax.sgd(lambda step: 0.1 * jnp.exp(theta["a"] * jnp.log(1 - step / LENGTH))))


def reported_before(a: jax.Array) -> jax.Array:
    """The mean loss before each of the updates."""
    x, losses = jnp.ones(()), []
    for step in range(LENGTH):
        losses.append(x**2 / 2)
        x = x - 0.1 * (1 - step / LENGTH) ** a * x
    return jnp.mean(jnp.stack(losses))


STEPS = {
    "vectorized": lambda: VectorizedLOptTruncatedStep(
        single_task_to_family(Bowl()), DecayedSGD(), ConstantTruncationSchedule(LENGTH), 2
    ),
    "simple": lambda: SimpleVecLOptTruncatedStep(Bowl(), DecayedSGD(), 2, LENGTH),
}


@pytest.mark.parametrize("name", STEPS)
@pytest.mark.parametrize(
    "make",
    [
        lambda step: TruncatedGrad(step, LENGTH + 1, 1),
        functools.partial(DODGE, trunc_length=LENGTH + 1, perturbation="rademacher"),
    ],
)
def test_a_reset_of_inner_training_does_not_change_the_gradient(name: str, make: Any) -> None:
    estimator = make(STEPS[name]())
    weights = WorkerWeights({"a": jnp.float32(1.0)}, None, OuterState(jnp.int32(0)))
    state = estimator.init_worker_state(weights, KEY)
    out, _ = estimator.compute_gradient_estimate(weights, KEY, state)
    assert (float(out.weight), int(out.diverged_tasks)) == (2, 0)
    np.testing.assert_allclose(out.grad["a"], jax.grad(reported_before)(1.0), rtol=1e-4)
