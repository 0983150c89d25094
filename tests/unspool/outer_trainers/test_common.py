"""Perturbations under the names that the tutorials import."""

import jax
import jax.numpy as jnp
import numpy as np

from unspool.outer_trainers.common import sample_perturbations, vector_sample_perturbations

THETA = {"w": jnp.arange(6.0).reshape(2, 3), "b": jnp.float32(1.0)}
KEY = jax.random.PRNGKey(0)


def test_a_perturbation_is_shaped_like_theta_and_scales_with_its_std() -> None:
    small, large = (sample_perturbations(THETA, KEY, std) for std in (0.1, 0.2))
    assert jax.tree.map(jnp.shape, small) == jax.tree.map(jnp.shape, THETA)
    jax.tree.map(lambda one, other: np.testing.assert_allclose(2 * one, other, rtol=1e-6), small, large)


def test_several_perturbations_come_with_both_perturbed_thetas() -> None:
    noise, pos, neg = vector_sample_perturbations(THETA, KEY, 0.5, 4)
    for name, leaf in THETA.items():
        assert noise[name].shape == (4, *jnp.shape(leaf))
        np.testing.assert_allclose(pos[name], np.asarray(leaf) + np.asarray(noise[name]), rtol=1e-6)
        np.testing.assert_allclose(neg[name], np.asarray(leaf) - np.asarray(noise[name]), rtol=1e-6)
    assert len(np.unique(noise["w"])) == 4 * 6


def test_perturbations_have_the_given_std() -> None:
    noise = vector_sample_perturbations({"w": jnp.zeros(100)}, KEY, 0.5, 200)[0]["w"]
    error = 0.5 / np.sqrt(2 * noise.size)
    assert abs(float(jnp.std(noise)) - 0.5) < 5 * error
    assert abs(float(jnp.mean(noise))) < 5 * 0.5 / np.sqrt(noise.size)
