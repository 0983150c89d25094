"""The gradient of antithetic pairs, against its formula in numpy."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.unspool.outer_trainers.systems import LinearSystem
from unspool.evolution.antithetic_pairs import AntitheticPairs
from unspool.evolution.loss_difference import Sides
from unspool.evolution.perturbations import LeafStds
from unspool.evolution.repeated_step import RepeatedStep
from unspool.outer_trainers.truncated_es import TruncatedES
from unspool.outer_trainers.truncated_step import VectorizedTruncatedStep

STEP = VectorizedTruncatedStep(LinearSystem(4), 3)
THETA = {"a": jnp.zeros(2), "b": jnp.zeros(())}
POS = jnp.array([[3.0, 1.0, 7.0], [2.0, 5.0, 0.0]])  # [T, N]
NEG = jnp.array([[1.0, 2.0, 7.0], [4.0, 1.0, 6.0]])
MASK = jnp.array([[True, True, False], [True, True, True]])
NOISE = {"a": jnp.array([[1.0, 2.0], [0.5, -1.0], [3.0, 0.0]]), "b": jnp.array([1.0, -2.0, 0.5])}


def pairs(**options: Any) -> AntitheticPairs:
    return TruncatedES(STEP, **options).pairs


def gradient(pos: jax.Array, std: Any, **options: Any) -> Any:
    """The estimate under one noise for both steps."""
    made = pairs(std=std, **options)
    difference = made.difference(Sides.of_pair(pos, NEG), MASK, jnp.zeros_like(MASK))
    total = jnp.sum(difference.delta, axis=0)
    weighted = {"a": jnp.sum(total[:, None] * NOISE["a"], axis=0), "b": jnp.sum(total * NOISE["b"])}
    return made.gradient(weighted, difference, losses_per_unroll=2.0)


def formula(counted: list[int], leaf: str, std: float) -> np.ndarray:
    delta = np.where(MASK, POS - NEG, 0).sum(axis=0)
    noise = np.asarray(NOISE[leaf]).reshape(3, -1)
    of_pairs = [delta[pair] * noise[pair] / (2 * std**2) / 2 for pair in counted]
    return np.mean(of_pairs, axis=0)


def test_an_estimate_is_the_mean_over_pairs_of_noise_times_difference() -> None:
    found = gradient(POS, 0.5)
    for leaf in NOISE:
        np.testing.assert_allclose(found[leaf].reshape(-1), formula([0, 1, 2], leaf, 0.5), rtol=1e-6)


def test_every_leaf_is_divided_by_its_own_std() -> None:
    found = gradient(POS, {"a": 0.5, "b": 2.0})
    for leaf, std in (("a", 0.5), ("b", 2.0)):
        np.testing.assert_allclose(found[leaf].reshape(-1), formula([0, 1, 2], leaf, std), rtol=1e-6)


def test_a_pair_that_diverges_is_no_part_of_the_mean() -> None:
    found = gradient(POS.at[1, 1].set(jnp.nan), 0.5)
    for leaf in NOISE:
        np.testing.assert_allclose(found[leaf].reshape(-1), formula([0, 2], leaf, 0.5), rtol=1e-6)


@pytest.mark.parametrize("count", [1, 4])
def test_noise_is_drawn_for_every_pair_of_every_task(count: int) -> None:
    made = pairs(std=0.1, pairs_per_task=count)
    noise = made.sample_noise(THETA, jax.random.PRNGKey(0))
    assert noise["a"].shape == (3 * count, 2)
    assert len(np.unique(noise["a"])) == 3 * count * 2
    zeros = made.no_noise(THETA)
    assert jax.tree.map(jnp.shape, zeros) == jax.tree.map(jnp.shape, noise)
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(zeros))


def test_one_pair_per_task_unrolls_the_step_itself() -> None:
    assert pairs().unrolled_step is STEP
    assert pairs(pairs_per_task=4).unrolled_step == RepeatedStep(STEP, 4)


def test_stds_by_path_are_hashable_and_do_not_depend_on_their_order() -> None:
    one, other = (TruncatedES(STEP, std=std) for std in ({"a": 1.0, "b": 2.0}, {"b": 2.0, "a": 1.0}))
    assert one == other
    assert hash(one) == hash(other)
    assert one.std == LeafStds((("a", 1.0), ("b", 2.0)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"std": {"a": -1.0}}, r"TruncatedES\(std={'a': -1.0}\): every std must be positive and finite"),
        ({"std": {"a": float("inf")}}, "every std must be positive"),
        ({"clip_loss_diff": 0.0}, r"clip_loss_diff must be positive, or None"),
        ({"divergence": "clip"}, r"divergence='clip'\): set clip_loss_diff"),
        ({"orthogonal": True, "pairs_per_task": 1}, "not with pairs_per_task=1"),
    ],
)
def test_options_that_contradict_each_other_are_rejected(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TruncatedES(STEP, **options)
