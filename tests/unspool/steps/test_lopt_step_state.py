"""The keys of a step of inner training."""

from typing import Any

import jax
import numpy as np

from unspool.steps.lopt_step_state import StepKeys, keys_of_tasks, outer_data_keys, step_keys

NUM_TASKS = 5
KEY = jax.random.PRNGKey(0)


def rows(keys: Any) -> set[tuple[int, ...]]:
    return {tuple(row) for row in np.asarray(keys).reshape(-1, 2).tolist()}


def test_every_task_has_keys_of_its_own_for_every_purpose() -> None:
    keys = step_keys(KEY, NUM_TASKS)
    per_task = keys._replace(root=KEY[None])
    assert len(set().union(*map(rows, per_task))) == 1 + NUM_TASKS * (len(StepKeys._fields) - 1)


def test_keys_depend_on_the_key_of_the_step_only() -> None:
    one, same, other = (step_keys(jax.random.PRNGKey(seed), NUM_TASKS) for seed in (1, 1, 2))
    jax.tree.map(np.testing.assert_array_equal, one, same)
    assert not set().union(*map(rows, one)) & set().union(*map(rows, other))


def test_keys_made_before_an_unroll_are_those_made_at_each_step() -> None:
    of_steps = jax.random.split(KEY, 3)
    together = jax.vmap(lambda key: step_keys(key, NUM_TASKS))(of_steps)
    for index, key in enumerate(of_steps):
        jax.tree.map(
            lambda all_, one, index=index: np.testing.assert_array_equal(all_[index], one),
            together,
            step_keys(key, NUM_TASKS),
        )


def test_the_training_step_and_the_schedule_of_a_task_share_no_key() -> None:
    keys = keys_of_tasks(KEY, NUM_TASKS)
    assert keys.shape[:2] == (NUM_TASKS, 2)
    assert len(rows(keys)) == 2 * NUM_TASKS
    np.testing.assert_array_equal(keys[:, 0], step_keys(KEY, NUM_TASKS).step)


def test_losses_without_a_step_use_the_stream_of_the_outer_data() -> None:
    np.testing.assert_array_equal(outer_data_keys(KEY, NUM_TASKS), step_keys(KEY, NUM_TASKS).outer_data)


def test_typed_keys_give_the_same_streams() -> None:
    typed = step_keys(jax.random.key(0), NUM_TASKS)
    jax.tree.map(
        lambda one, other: np.testing.assert_array_equal(jax.random.key_data(one), other),
        typed,
        step_keys(KEY, NUM_TASKS),
    )
