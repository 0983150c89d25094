"""What distinguishes the quadratic tasks from each other."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from unspool.tasks.quadratics import (
    FixedDimQuadraticFamily,
    FixedDimQuadraticFamilyData,
    LogQuadraticTask,
    NoisyMeanQuadraticTask,
    NoisyQuadraticFamily,
    QuadraticTask,
    SumQuadraticTask,
)


def test_log_quadratic_is_the_logarithm_of_the_quadratic() -> None:
    params = jnp.arange(10.0)
    log_loss = LogQuadraticTask().loss(params, jax.random.key(0), ())
    np.testing.assert_allclose(
        jnp.exp(log_loss), QuadraticTask(10).loss(params, jax.random.key(0), ()), rtol=1e-5
    )


def test_sum_quadratic_is_flat_along_the_difference() -> None:
    params = {"a": jnp.arange(10.0), "b": -jnp.arange(10.0)}
    assert SumQuadraticTask().loss(params, jax.random.key(0), ()) == 0.0


def test_noisy_mean_moves_the_minimum_with_the_key() -> None:
    task = NoisyMeanQuadraticTask(dim=3, noise_stdev=0.0)
    assert task.loss(jnp.zeros((3, 1)), jax.random.key(0), ()) == 0.0
    noisy = NoisyMeanQuadraticTask(dim=3)
    losses = [noisy.loss(jnp.zeros((3, 1)), jax.random.key(seed), ()) for seed in (0, 1)]
    assert losses[0] != losses[1]


def test_noisy_quadratic_has_an_exact_loss_and_a_noisy_gradient() -> None:
    noisy, exact = NoisyQuadraticFamily(6, cov=0.5), NoisyQuadraticFamily(6, cov=0.0)
    task_params = noisy.sample(jax.random.key(0))
    values = [
        jax.value_and_grad(family.task_fn(task_params).loss)(jnp.zeros(6), jax.random.key(1), ())
        for family in (noisy, exact)
    ]
    assert values[0][0] == values[1][0]
    assert np.all(values[0][1] != values[1][1])


def test_the_noisy_quadratic_squares_the_scale() -> None:
    task = NoisyQuadraticFamily(2, cov=0.5).task_fn((jnp.asarray([1.0, -1.0]), jnp.asarray([2.0, 3.0])))
    # Errors of -2 and -2, times 2 and 3, squared: 16 + 36.
    assert task.loss(jnp.asarray([3.0, 1.0]), jax.random.key(0), ()) == 52.0


def test_noise_in_the_gradient_is_added_with_the_given_deviation() -> None:
    family = NoisyQuadraticFamily(2, cov=0.5)
    task = family.task_fn((jnp.zeros(2), jnp.asarray([1.0, 3.0])))
    keys = jax.random.split(jax.random.key(0), 20_000)
    grads = jax.vmap(lambda key: jax.grad(task.loss)(jnp.asarray([1.0, 10.0]), key, ()))(keys)
    # 20,000 samples: the mean is known to 0.0035 and the deviation to 0.0025; both bounds are 5 sigma.
    np.testing.assert_allclose(grads.mean(0), [2.0, 180.0], atol=0.018)
    np.testing.assert_allclose(grads.std(0), 0.5, atol=0.0125)


def test_the_family_with_data_reports_the_size_of_its_parameters() -> None:
    task = FixedDimQuadraticFamilyData(2).task_fn(jnp.asarray([3.0, -4.0]))
    loss, aux = task.loss_and_aux(jnp.asarray([1.0, -3.0]), jax.random.key(0), jnp.asarray([1.5]))
    assert (loss, aux["l1"], aux["l2"]) == (6.5, 2.0, 5.0)


@pytest.mark.parametrize("make", [QuadraticTask, FixedDimQuadraticFamily, NoisyQuadraticFamily])
def test_an_impossible_dimension_is_rejected(make: type) -> None:
    with pytest.raises(ValueError, match=rf"{make.__name__}\(dim=0\): dim must be at least 1"):
        make(dim=0)


def test_negative_noise_is_rejected() -> None:
    with pytest.raises(ValueError, match="cov must not be negative"):
        NoisyQuadraticFamily(cov=-1.0)
    with pytest.raises(ValueError, match="noise_stdev must not be negative"):
        NoisyMeanQuadraticTask(noise_stdev=-1.0)
