"""Outer optimizers from tables."""

from typing import Any

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from unspool.config.config_error import ConfigError
from unspool.config.outer_optimizer import build_outer_optimizer, check_outer_optimizer

pytestmark = pytest.mark.promoting  # optax's schedules and bias corrections
GRADIENT = jnp.array([3.0, -4.0])


def update_of(table: dict[str, Any], gradient: Any = GRADIENT, steps: int = 1) -> np.ndarray:
    """Return the last of several updates with the same gradient."""
    optimizer = build_outer_optimizer(table, "outer_optimizer")
    state = optimizer.init(gradient)
    for _ in range(steps):
        update, state = optimizer.update(gradient, state, gradient)
    return np.asarray(update)


def problems_of(table: Any) -> dict[str, str]:
    with pytest.raises(ConfigError) as caught:
        build_outer_optimizer(table, "o")
    return {problem.key: str(problem) for problem in caught.value.problems}


def test_arguments_reach_the_named_optimizer() -> None:
    np.testing.assert_allclose(update_of({"type": "sgd", "learning_rate": 0.5}), [-1.5, 2.0])


def test_contributed_optimizers_have_names_too() -> None:
    np.testing.assert_allclose(update_of({"type": "adopt", "learning_rate": 0.0}), [0.0, 0.0], atol=1e-8)


def test_each_entry_is_clipped_before_the_norm() -> None:
    table = {"type": "sgd", "learning_rate": 1.0, "clip_norm": 1.0, "clip": 3.0}
    np.testing.assert_allclose(update_of(table), np.array([-1.0, 1.0]) / np.sqrt(2), rtol=1e-6)


def test_a_schedule_follows_the_number_of_updates() -> None:
    rate = {"type": "linear_schedule", "init_value": 1.0, "end_value": 0.0, "transition_steps": 4}
    table = {"type": "sgd", "learning_rate": rate}
    np.testing.assert_allclose(update_of(table, steps=3), -0.5 * GRADIENT)


@pytest.mark.parametrize(
    ("table", "key", "words"),
    [
        ("adam", "o", "must be a table whose `type` is an optax optimizer"),
        ({}, "o.type", "missing; name an optax optimizer"),
        ({"type": "scale_by_adam"}, "o.type", "is not an optax optimizer"),
        ({"type": "sgdd", "learning_rate": 1.0}, "o.type", "did you mean sgd?"),
        ({"type": "sgd"}, "o.learning_rate", "missing"),
        ({"type": "sgd", "learning_rate": 1.0, "clip_norm": True}, "o.clip_norm", "must be a number above 0"),
        ({"type": "sgd", "learning_rate": {}}, "o.learning_rate.type", "missing; name an optax schedule"),
        ({"type": "sgd", "learning_rate": {"type": "adam"}}, "o.learning_rate.type", "is not an optax"),
    ],
)
def test_a_problem_of_the_table_is_named_by_its_key(table: Any, key: str, words: str) -> None:
    assert words in problems_of(table)[key]


def test_problems_of_clipping_and_of_the_optimizer_are_reported_together() -> None:
    table = {"type": "sgd", "learning_rate": "fast", "clip": 0, "clip_norm": -1.0}
    assert problems_of(table).keys() == {"o.clip", "o.clip_norm", "o.learning_rate"}


def test_an_optimizer_that_needs_more_than_gradients_is_rejected() -> None:
    check_outer_optimizer(optax.adam(0.1), GRADIENT, "o")
    with pytest.raises(
        ConfigError, match=r"o.type: cannot be used .*\(choose one that needs gradients only\)"
    ):
        check_outer_optimizer(optax.lbfgs(), GRADIENT, "o")
