"""Truncation schedules against golden sequences and their own rules."""

import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from unspool.outer_trainers.gradient_learner import OuterState
from unspool.outer_trainers.truncation_schedule import (
    ConstantTruncationSchedule,
    LogUniformLengthSchedule,
    NeverEndingTruncationSchedule,
    ScheduledTruncationSchedule,
)

pytestmark = pytest.mark.with_x64

GOLDEN = json.loads((Path(__file__).parents[2] / "data/golden/truncation.json").read_text())
KEY = jax.random.PRNGKey(0)
OUTER_STATE = OuterState(jnp.int32(100))


def growing(step: jax.Array, max_steps: int | None = None) -> jax.Array:
    """A length that grows with outer training."""
    return 10 + step


SCHEDULES = [
    ConstantTruncationSchedule(5),
    LogUniformLengthSchedule(5, 20),
    LogUniformLengthSchedule(5, growing),
    NeverEndingTruncationSchedule(),
    ScheduledTruncationSchedule(growing),
    ScheduledTruncationSchedule(growing, std=5.0, min_length=107),
]


def test_the_tutorials_constant_schedule_is_done_from_its_length_on() -> None:
    schedule = ConstantTruncationSchedule(10)
    state = schedule.init(KEY, None)
    is_done = [bool(schedule.next_state(state, i, KEY, None)[1]) for i in range(12)]
    assert is_done == GOLDEN["notebook_part3_constant10_is_done_i0_11"]


def test_log_uniform_lengths_are_the_golden_ones() -> None:
    schedule = LogUniformLengthSchedule(10, 1000)
    keys = [jax.random.fold_in(KEY, i) for i in range(64)]
    lengths = [int(schedule.init(key, None).length) for key in keys]
    assert lengths == GOLDEN["loguniform_10_1000_lengths_fold_in_0_63"]


def test_log_uniform_lengths_have_the_log_uniform_mean() -> None:
    lengths = jax.vmap(lambda key: LogUniformLengthSchedule(10, 1000).init(key, None).length)(
        jax.random.split(KEY, 20000)
    )
    expected = GOLDEN["loguniform_10_1000_stats"]["theory_mean"]
    standard_error = np.std(lengths) / np.sqrt(20000)
    assert abs(np.mean(lengths) + 0.5 - expected) < 5 * standard_error + 0.5
    assert np.min(lengths) >= 10
    assert np.max(lengths) < 1000


def test_log_uniform_lengths_between_equal_bounds_are_that_length() -> None:
    keys = jax.random.split(KEY, 3)
    for length in [*range(1, 65), 100, 5000, 20000, 100_000, 1_000_000]:
        drawn = jax.vmap(lambda key, n=length: LogUniformLengthSchedule(n, n).init(key, None).length)(keys)
        assert drawn.tolist() == [length] * 3


def test_log_uniform_lengths_stay_within_their_bounds() -> None:
    schedule = LogUniformLengthSchedule(13, 14)
    lengths = jax.vmap(lambda key: schedule.init(key, None).length)(jax.random.split(KEY, 20000))
    assert set(lengths.tolist()) <= {13, 14}


def test_a_finished_episode_has_the_next_length_already() -> None:
    schedule = LogUniformLengthSchedule(5, 2000)
    state = schedule.init(KEY, None)
    going_on, _ = schedule.next_state(state, 1, jax.random.PRNGKey(1), None)
    finished, is_done = schedule.next_state(state, int(state.length), jax.random.PRNGKey(1), None)
    assert int(going_on.length) == int(state.length)
    assert bool(is_done)
    assert int(finished.length) != int(state.length)


def test_bounds_may_follow_outer_training() -> None:
    lengths = jax.vmap(lambda key: LogUniformLengthSchedule(growing, growing).init(key, OUTER_STATE).length)(
        jax.random.split(KEY, 8)
    )
    assert set(np.asarray(lengths).tolist()) <= {109, 110}


def test_a_scheduled_length_is_spread_but_not_below_its_minimum() -> None:
    schedule = ScheduledTruncationSchedule(growing, std=20.0, min_length=105)
    lengths = np.asarray(
        jax.vmap(lambda key: schedule.init(key, OUTER_STATE).length)(jax.random.split(KEY, 200))
    )
    assert lengths.min() == 105
    assert lengths.max() > 120


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda schedule: type(schedule).__name__)
def test_the_state_is_a_fixed_point_under_jit_and_vmap(schedule: Any) -> None:
    keys = jax.random.split(KEY, 3)
    state = jax.vmap(lambda key: schedule.init(key, OUTER_STATE))(keys)
    step = jax.jit(jax.vmap(lambda s, key: schedule.next_state(s, jnp.int32(4), key, OUTER_STATE)))
    after, is_done = step(state, keys)
    assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), after) == jax.tree.map(
        lambda leaf: (leaf.shape, leaf.dtype), state
    )
    assert is_done.dtype == bool


@pytest.mark.parametrize(
    "schedule",
    [
        ScheduledTruncationSchedule(lambda step, max_steps=None: 0.5),
        LogUniformLengthSchedule(lambda step, max_steps=None: 0.0, lambda step, max_steps=None: 0.5),
    ],
    ids=["scheduled", "log-uniform"],
)
def test_an_episode_has_at_least_one_step_for_any_scalar_schedule(schedule: Any) -> None:
    assert schedule.init(jax.random.PRNGKey(0), OUTER_STATE).length == 1


@pytest.mark.parametrize(
    "schedule",
    [
        *SCHEDULES[:3],
        *SCHEDULES[4:],
        LogUniformLengthSchedule(1, 3),
        LogUniformLengthSchedule(13, 13),
        LogUniformLengthSchedule(200, 20_000),
    ],
)
def test_the_mean_length_is_that_of_the_lengths_drawn(schedule: Any) -> None:
    keys = jax.random.split(KEY, 40_000)
    lengths = np.asarray(jax.vmap(lambda key: schedule.init(key, OUTER_STATE).length)(keys), np.float64)
    error = lengths.std() / np.sqrt(len(lengths))
    rounding = 0.5 if getattr(schedule, "std", 0) else 1e-4 * lengths.mean()
    assert abs(float(schedule.mean_length(OUTER_STATE)) - lengths.mean()) < 5 * error + rounding


def test_episodes_that_never_end_have_no_mean_length() -> None:
    assert NeverEndingTruncationSchedule().mean_length(OUTER_STATE) is None


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_key_made_lazily_gives_the_same_next_state(schedule: Any) -> None:
    state = schedule.init(KEY, OUTER_STATE)
    for step in (1, 10_000):
        lazily = schedule.next_state_lazily(state, step, lambda: KEY, OUTER_STATE)
        assert_equal_trees(lazily, schedule.next_state(state, step, KEY, OUTER_STATE))


def test_no_key_is_made_where_no_length_is_drawn() -> None:
    made = []

    def make_key() -> jax.Array:
        jax.debug.callback(lambda: made.append(1))
        return KEY

    schedule = LogUniformLengthSchedule(5, 20)
    state = schedule.init(KEY, None)
    step = jax.jit(lambda at: schedule.next_state_lazily(state, at, make_key, None))
    for at in (1, 4, 20):
        jax.block_until_ready(step(at))
    jax.effects_barrier()
    assert len(made) == 1


def assert_equal_trees(one: Any, other: Any) -> None:
    jax.tree.map(np.testing.assert_array_equal, one, other)
