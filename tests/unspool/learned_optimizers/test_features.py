"""Features of per-parameter learned optimizers, against numpy."""

import jax.numpy as jnp
import numpy as np
import pytest

from unspool.learned_optimizers.features import (
    STEP_TIMESCALES,
    init_momenta,
    second_moment_normalized,
    tanh_step_embedding,
    update_momenta,
)

DECAYS = (0.0, 0.5, 0.9)


@pytest.mark.parametrize("shape", [(), (2,), (2, 3)])
def test_momenta_are_moving_averages_with_every_decay(shape: tuple[int, ...]) -> None:
    gradients = np.random.default_rng(0).normal(size=(4, *shape)).astype(np.float32)
    momenta, expected = init_momenta(jnp.zeros(shape, jnp.bfloat16), 3), np.zeros((3, *shape))
    assert (momenta.shape, momenta.dtype) == ((3, *shape), jnp.float32)
    for gradient in gradients:
        momenta = update_momenta(momenta, jnp.asarray(gradient), DECAYS)
        for row, decay in enumerate(DECAYS):
            expected[row] = decay * expected[row] + (1 - decay) * gradient
    np.testing.assert_allclose(momenta, expected, rtol=1e-5, atol=1e-6)


def test_each_feature_is_divided_by_its_own_root_mean_square() -> None:
    rows = np.array([[3.0, -4.0], [300.0, 400.0], [0.0, 0.0]])
    normalized = np.asarray(second_moment_normalized(jnp.asarray(rows)))
    np.testing.assert_allclose(normalized[:2], rows[:2] / np.sqrt([[12.5], [125_000.0]]), rtol=1e-5)
    assert normalized[2].tolist() == [0.0, 0.0]


def test_tiny_features_are_not_blown_up() -> None:
    normalized = second_moment_normalized(jnp.full((1, 4), 1e-6))
    np.testing.assert_allclose(normalized, 1e-6 / np.sqrt(1e-5), rtol=1e-4)


@pytest.mark.parametrize("step", [0, 10, 1_000_000])
def test_the_time_is_embedded_by_timescale(step: int) -> None:
    expected = np.tanh(step / np.array(STEP_TIMESCALES) - 1)
    np.testing.assert_allclose(tanh_step_embedding(step), expected, rtol=1e-4, atol=1e-6)
    passed = [timescale < step for timescale in STEP_TIMESCALES if timescale != step]
    assert passed == [bool(one > 0) for one, t in zip(expected, STEP_TIMESCALES, strict=True) if t != step]
