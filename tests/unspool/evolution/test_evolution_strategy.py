"""The weights of steps and of episodes."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.unspool.outer_trainers.systems import LinearSystem
from unspool.outer_trainers.truncated_pes import TruncatedPES
from unspool.outer_trainers.truncated_step import TruncatedUnrollOut, VectorizedTruncatedStep


def report(iteration: list[int], episode_length: jax.Array | None) -> TruncatedUnrollOut:
    steps = jnp.array(iteration)[:, None]
    anything = jnp.zeros(steps.shape)
    return TruncatedUnrollOut(anything, steps > 100, (), steps, steps > 0, episode_length)


def weights(out: TruncatedUnrollOut, **options: Any) -> Any:
    step = VectorizedTruncatedStep(LinearSystem(4), 1)
    return TruncatedPES(step, 2, steps_per_jit=1, **options).step_weights(out, None)


def test_all_steps_have_equal_weight_by_default() -> None:
    assert weights(report([1, 2], None)) is None


def test_episodes_of_any_length_have_equal_weight_when_weighted_by_episode() -> None:
    out = report([1, 2, 3, 4, 0, 1, 2], jnp.array([[4], [4], [4], [4], [4], [2], [2]]))
    by_episode = np.asarray(weights(out, weight_by="episode"))[:, 0]
    # The mean length is unknown, so the truncation's length takes its place.
    assert by_episode[:4].sum() == by_episode[5:].sum() == 2


def test_late_steps_are_weighted_by_their_inverse_survival_probability() -> None:
    out = report([1, 2, 3, 4, 5], None)
    seen = np.asarray(weights(out, death_probability=0.2))[:, 0]
    np.testing.assert_allclose(seen * 0.8 ** np.array([0, 0, 1, 1, 2]), 1, rtol=1e-6)


def test_the_weight_of_very_late_steps_is_bounded() -> None:
    seen = np.asarray(weights(report([1, 2_000_001], None), death_probability=0.5))[:, 0]
    np.testing.assert_allclose(seen, [1, 1e6], rtol=1e-4)


def test_weights_by_episode_need_the_length_of_episodes() -> None:
    with pytest.raises(ValueError, match=r"weight_by='episode'.*LinearSystem.*episode_length"):
        weights(report([1], None), weight_by="episode")
