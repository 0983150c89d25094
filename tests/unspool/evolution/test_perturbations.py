"""The distributions of the noise that theta is perturbed with."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from unspool.evolution.perturbations import LeafStds, NoiseKind, Perturbations

THETA = {"a": jnp.zeros(3), "b": {"w": jnp.zeros((2, 2)), "x": jnp.zeros(())}}
DIMENSION, TASKS = 8, 20_000
STDS = LeafStds((("", 2.0), ("b", 0.5), ("b/x", 3.0)))


def rows(pairs: int, kind: NoiseKind = "gaussian", orthogonal: bool = False, std: Any = STDS) -> np.ndarray:
    """Noise over std, `[TASKS, pairs, DIMENSION]`."""
    perturbations = Perturbations(std, kind, pairs, orthogonal)
    noise = perturbations.sample(THETA, jax.random.split(jax.random.PRNGKey(0), TASKS))
    scaled = jax.tree.map(jnp.divide, noise, perturbations.std_of_leaves(THETA))
    flat = [leaf.reshape(TASKS, pairs, -1) for leaf in jax.tree.leaves(scaled)]
    return np.concatenate([np.asarray(leaf, np.float64) for leaf in flat], axis=-1)


@pytest.mark.parametrize(
    ("kind", "pairs", "orthogonal"),
    [
        ("gaussian", 1, False),
        ("rademacher", 2, False),
        ("sphere", 1, False),
        ("gaussian", 11, True),
        ("sphere", 3, True),
    ],
)
def test_noise_over_std_has_mean_zero_and_the_identity_as_covariance(
    kind: NoiseKind, pairs: int, orthogonal: bool
) -> None:
    noise = rows(pairs, kind, orthogonal)[:, -1]
    products = np.einsum("ni,nj->nij", noise, noise)
    for samples, expected in ((noise, np.zeros(DIMENSION)), (products, np.eye(DIMENSION))):
        spread = samples.std(axis=0) / np.sqrt(TASKS) + 1e-6
        assert np.abs((samples.mean(axis=0) - expected) / spread).max() < 5


def test_rademacher_noise_is_one_or_minus_one_and_a_sphere_has_one_radius() -> None:
    assert set(np.unique(rows(1, "rademacher", std=1.0))) == {-1.0, 1.0}
    np.testing.assert_allclose(np.linalg.norm(rows(2, "sphere"), axis=-1), DIMENSION**0.5, rtol=1e-5)


def test_orthogonal_directions_are_orthogonal_in_blocks_of_the_dimension() -> None:
    noise = rows(11, "gaussian", orthogonal=True)
    gram = np.einsum("npi,nqi->npq", noise, noise)
    apart = ~np.eye(11, dtype=bool)
    apart[8:, :8] = apart[:8, 8:] = False
    assert np.abs(gram[:, apart]).max() < 1e-4
    assert np.abs(gram[:, :8, 8:]).max() > 1


def test_pairs_of_a_task_and_of_other_tasks_are_uncorrelated() -> None:
    noise = rows(2)
    pairs = (noise[:, 0] * noise[:, 1]).mean(axis=1)
    tasks = (noise[1:, 0] * noise[:-1, 0]).mean(axis=1)
    for products in (pairs, tasks):
        assert abs(products.mean()) < 5 * products.std() / np.sqrt(len(products))


def test_one_pair_of_one_task_is_what_its_key_alone_gives() -> None:
    keys = jax.random.split(jax.random.PRNGKey(1), 3)
    together = Perturbations(0.1).sample(THETA, keys)
    alone = Perturbations(0.1).sample(THETA, keys[2:])
    jax.tree.map(lambda one, other: np.testing.assert_array_equal(one[2:], other), together, alone)
