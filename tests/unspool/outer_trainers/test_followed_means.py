"""Which mean estimates follow: the same for any number of tasks, of lanes and of merged pushes.

The truths are sums over the states that a task can be found in, in the long run each as often as any other.
"""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.unspool.outer_trainers.systems import LossOfStep
from unspool.outer_trainers.full_es import FullES
from unspool.outer_trainers.full_grad import FullGrad
from unspool.outer_trainers.gradient_estimator import GradientEstimator, OuterState, WorkerWeights
from unspool.outer_trainers.gradient_learner import AggregatedGradient, GradientLearner
from unspool.outer_trainers.truncated_es import TruncatedES
from unspool.outer_trainers.truncated_es_shared_noise import NRES
from unspool.outer_trainers.truncated_grad import TruncatedGrad
from unspool.outer_trainers.truncated_step import (
    EpisodesInExpectation,
    TruncatedStep,
    TruncatedUnrollOut,
    VectorizedTruncatedStep,
)
from unspool.outer_trainers.truncation_schedule import ConstantTruncationState, TruncationSchedule
from unspool.systems.influence_balancing import InfluenceBalancing
from unspool.types import Batch, PRNGKey, Theta

SHORT, LONG, WINDOW = 4, 12, 5
STEPS_OF_TWO = SHORT + LONG + 2  # with their resets
LANES = (1, 4)
SIGMAS = 5.0
WEIGHTS = WorkerWeights({"a": jnp.float32(0.0)}, None, OuterState(jnp.int32(0)))
# By steps, long episodes count more; by episodes, both the same.
BY_STEP, BY_EPISODE = (3 * LONG - SHORT) / (LONG + SHORT), (3 - 1) / 2


class TwoLengthsState(NamedTuple):
    step: jax.Array
    length: jax.Array
    is_done: jax.Array


@dataclasses.dataclass(frozen=True)
class TwoLengths(TruncatedStep):
    """Episodes of 4 or of 12 steps, and a masked one that resets. The loss is -theta in the short ones and
    3 theta in the long ones.
    """

    says_so: bool = True

    def outer_init(self, key: PRNGKey) -> Theta:
        return {"a": jnp.float32(0.0)}

    def episodes(self, outer_state: Any) -> EpisodesInExpectation:
        known = EpisodesInExpectation((SHORT + LONG) / 2, (SHORT + LONG) / STEPS_OF_TWO)
        return known if self.says_so else super().episodes(outer_state)

    def init_step_state(self, theta: Theta, outer_state: Any, key: PRNGKey) -> TwoLengthsState:
        return self._start(key, jnp.int32(0))

    def _start(self, key: PRNGKey, step: jax.Array) -> TwoLengthsState:
        length = jnp.where(jax.random.bernoulli(key), LONG, SHORT).astype(jnp.int32)
        return TwoLengthsState(step, length, jnp.bool_(False))

    def unroll_step(
        self, theta: Theta, unroll_state: TwoLengthsState, key: PRNGKey, data: Batch, outer_state: Any
    ) -> tuple[TwoLengthsState, TruncatedUnrollOut]:
        step, length, resets = unroll_state
        moved = TwoLengthsState(step + 1, length, step + 1 >= length)
        start = self._start(key, jnp.int32(0))
        state = jax.tree.map(lambda new, old: jnp.where(resets, new, old), start, moved)
        loss = jnp.where(length == LONG, 3.0, -1.0) * theta["a"]
        return state, TruncatedUnrollOut(loss, state.is_done, (), state.step, ~resets, length)


def truth_of_window_means(truncation: int) -> float:
    """The mean over truncations that have a loss of their mean gradient, by enumeration."""

    def truncations(length: int, step: int, left: int) -> list[tuple[float, list[float]]]:
        if left == 0:
            return [(1.0, [])]
        if step == length:
            return [(p / 2, losses) for new in (SHORT, LONG) for p, losses in truncations(new, 0, left - 1)]
        here = 3.0 if length == LONG else -1.0
        return [(p, [here, *losses]) for p, losses in truncations(length, step + 1, left - 1)]

    found = [
        one
        for length in (SHORT, LONG)
        for step in range(length + 1)
        for one in truncations(length, step, truncation)
        if one[1]
    ]
    return sum(p * np.mean(losses) for p, losses in found) / sum(p for p, _ in found)


@functools.cache
def estimates(estimator: Any, trajectories: int, truncations: int) -> Any:
    """Gradients and weights `[trajectories, truncations]`, after the first truncations have been left out."""

    def trajectory(key: PRNGKey) -> Any:
        init_key, key = jax.random.split(key)

        def truncation(state: Any, key: PRNGKey) -> Any:
            out, _ = estimator.estimate(WEIGHTS, key, state, estimator.get_data(), False)
            return out.unroll_state, (out.grad["a"], out.weight)

        keys = jax.random.split(key, 40 + truncations)
        return jax.lax.scan(truncation, estimator.init_worker_state(WEIGHTS, init_key), keys)[1]

    grad, weight = jax.jit(jax.vmap(trajectory))(jax.random.split(jax.random.PRNGKey(0), trajectories))
    return np.asarray(grad, np.float64)[:, -truncations:], np.asarray(weight, np.float64)[:, -truncations:]


def assert_updates_follow(estimator: GradientEstimator, truth: float, trajectories: int) -> None:
    """The mean over updates, each of the weighted mean of so many independent lanes."""
    grad, weight = estimates(estimator, trajectories, 60)
    for lanes in LANES:
        grads, weights = (part.reshape(lanes, -1, part.shape[1]) for part in (grad, weight))
        total = weights.sum(axis=0)
        updates = (grads * weights).sum(axis=0) / np.maximum(total, 1e-9)
        of_group = updates.sum(axis=1) / (total > 0).sum(axis=1)
        error = of_group.std() / np.sqrt(len(of_group))
        assert abs(of_group.mean() - truth) < SIGMAS * error, (lanes, of_group.mean(), truth, error)


@pytest.mark.parametrize("num_tasks", [1, 4, 64])
@pytest.mark.parametrize(("weight_by", "truth"), [("step", BY_STEP), ("episode", BY_EPISODE)])
def test_windows_follow_the_mean_over_steps_or_over_episodes(
    weight_by: Any, truth: float, num_tasks: int
) -> None:
    step = VectorizedTruncatedStep(TwoLengths(), num_tasks)
    estimator = NRES(step, WINDOW, std=0.1, perturbation="rademacher", weight_by=weight_by)
    assert_updates_follow(estimator, truth, max(2048 // num_tasks, 128))


def test_an_unknown_share_of_resets_only_scales_the_mean_over_steps() -> None:
    step = VectorizedTruncatedStep(TwoLengths(says_so=False), 4)
    estimator = TruncatedES(step, WINDOW, steps_per_jit=1, std=0.1, perturbation="rademacher")
    assert_updates_follow(estimator, BY_STEP * (SHORT + LONG) / STEPS_OF_TWO, 512)


@pytest.mark.parametrize("num_tasks", [1, 16])
def test_truncated_backpropagation_follows_the_mean_of_windows_means(num_tasks: int) -> None:
    estimator = TruncatedGrad(VectorizedTruncatedStep(TwoLengths(), num_tasks), WINDOW, steps_per_jit=1)
    assert_updates_follow(estimator, truth_of_window_means(WINDOW), max(2048 // num_tasks, 128))


def grows_with_time(step: jax.Array, a: jax.Array) -> jax.Array:
    """The loss is -theta in the first 4 steps of an episode, theta afterwards."""
    return jnp.where(step <= SHORT, -1.0, 1.0) * a


@dataclasses.dataclass(frozen=True)
class ShortOrLong(TruncationSchedule):
    def init(self, key: PRNGKey, outer_state: Any) -> ConstantTruncationState:
        return ConstantTruncationState(jnp.where(jax.random.bernoulli(key), LONG, SHORT).astype(jnp.int32))

    def next_state(self, state: Any, step: Any, key: PRNGKey, outer_state: Any) -> tuple[Any, jax.Array]:
        return state, jnp.asarray(step) >= state.length

    def longest_episode(self) -> int:
        return LONG


def whole_episodes(num_tasks: int) -> dict[str, GradientEstimator]:
    step = VectorizedTruncatedStep(LossOfStep(grows_with_time), num_tasks)
    return {
        "FullES": FullES(step, ShortOrLong(), std=0.1, steps_per_jit=4, perturbation="rademacher"),
        "FullGrad": FullGrad(step, ShortOrLong()),
    }


@pytest.mark.parametrize("name", ["FullES", "FullGrad"])
@pytest.mark.parametrize("num_tasks", [1, 4])
def test_whole_episodes_count_the_same_whatever_their_length(name: str, num_tasks: int) -> None:
    estimator = whole_episodes(num_tasks)[name]
    of_long = (LONG - 2 * SHORT) / LONG
    assert_updates_follow(estimator, (-1 + of_long) / 2, 512)
    grad, weight = estimates(estimator, 512, 60)
    np.testing.assert_allclose(np.unique(grad.round(4)), [-1, round(of_long, 4)], atol=2e-4)
    assert np.all(weight == num_tasks)


class FromZero:
    def init(self, key: PRNGKey) -> Theta:
        return {"a": jnp.float32(0.0)}


def test_a_learner_gives_a_short_episode_the_weight_of_a_long_one() -> None:
    estimator = whole_episodes(1)["FullES"]
    keys = map(jax.random.PRNGKey, range(12))
    state = estimator.init_worker_state(WEIGHTS, jax.random.PRNGKey(0))
    outs = [estimator.compute_gradient_estimate(WEIGHTS, key, state)[0] for key in keys]
    by_length = {int(out.inner_steps): out for out in outs}
    assert sorted(by_length) == [2 * SHORT, 2 * LONG]
    learner = GradientLearner(FromZero(), optax.sgd(1.0))
    entries = [AggregatedGradient(out.grad, None, out.mean_loss, out.weight) for out in by_length.values()]
    state, _ = learner.update(learner.init(jax.random.PRNGKey(0)), entries)
    moved = float(learner.get_meta_params(state)["a"])
    assert moved == pytest.approx(-(-1 + (LONG - 2 * SHORT) / LONG) / 2, rel=1e-3)


def test_windows_that_deaths_make_rare_count_more_even_if_all_tasks_are_in_step() -> None:
    step = VectorizedTruncatedStep(InfluenceBalancing(num_units=3, num_positive=1, episode_length=20), 4)
    weights = WorkerWeights(step.outer_init(jax.random.PRNGKey(0)), None, OuterState(jnp.int32(0)))

    def gradients(death_probability: float) -> list[float]:
        estimator = NRES(step, 5, std=0.1, death_probability=death_probability)
        state, found = estimator.init_worker_state(weights, jax.random.PRNGKey(1)), []
        for key in jax.random.split(jax.random.PRNGKey(2), 4):
            out, _ = estimator.compute_gradient_estimate(weights, key, state)
            assert out.weight == 4
            state = out.unroll_state
            found.append(float(out.grad["drive"]))
        return found

    ratios = np.array(gradients(0.2)) / np.array(gradients(0.0))
    np.testing.assert_allclose(ratios, 0.8 ** -np.arange(4.0), rtol=1e-4)


def test_an_estimate_without_any_loss_weighs_nothing() -> None:
    system = InfluenceBalancing(num_units=3, num_positive=1, loss_every=4, episode_length=20)
    step = VectorizedTruncatedStep(system, 2)
    weights = WorkerWeights(step.outer_init(jax.random.PRNGKey(0)), None, OuterState(jnp.int32(0)))
    estimator = NRES(step, 2, std=0.1)
    state, found = estimator.init_worker_state(weights, jax.random.PRNGKey(1)), []
    for key in jax.random.split(jax.random.PRNGKey(2), 4):
        out, _ = estimator.compute_gradient_estimate(weights, key, state)
        state = out.unroll_state
        found.append((float(out.weight), int(out.inner_steps)))
    assert found == [(0, 8), (2, 8), (0, 8), (2, 8)]
