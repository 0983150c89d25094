"""Optimizers that optax transformations define."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from unspool.optimizers import SGD, Adam, AdamW, OptaxOptimizer


def test_an_optax_transformation_that_takes_the_loss_gets_it() -> None:
    opt = OptaxOptimizer(optax.polyak_sgd())
    state = opt.update(opt.init(jnp.asarray(2.0)), jnp.asarray(4.0), loss=jnp.asarray(4.0))
    # Polyak's step is loss / |gradient|^2, so that x^2 at 2 steps to 1.
    np.testing.assert_allclose(opt.get_params(state), 1.0, rtol=1e-5)


def test_a_schedule_sees_the_iteration() -> None:
    opt = SGD(lambda step: jnp.where(step < 1, 1.0, 0.0))
    state = opt.init(jnp.zeros(()))
    for _ in range(3):
        state = opt.update(state, jnp.ones(()))
    assert opt.get_params(state) == -1.0


def test_states_are_edited_as_the_tutorials_do() -> None:
    state = Adam().init(jnp.zeros(2))
    assert state.replace(iteration=jnp.int32(7)).iteration == 7
    assert state._replace(iteration=jnp.int32(7)).iteration == 7


def test_adam_has_a_finite_outer_gradient_where_its_second_moment_is_zero() -> None:
    def trained(grad: jax.Array) -> jax.Array:
        opt = Adam()
        return opt.get_params(opt.update(opt.init(jnp.zeros(())), grad))

    assert jnp.isfinite(jax.grad(trained)(jnp.zeros(())))


def test_decoupled_weight_decay_shrinks_parameters_by_the_learning_rate_times_the_decay() -> None:
    decayed, plain = (AdamW(0.1, weight_decay=decay) for decay in (0.5, 0.0))
    params = jnp.asarray([2.0, -4.0])
    after = [opt.get_params(opt.update(opt.init(params), jnp.ones(2))) for opt in (decayed, plain)]
    np.testing.assert_allclose(after[0] - after[1], -0.1 * 0.5 * params, rtol=1e-5)


def test_gradients_of_python_numbers_and_of_numpy_are_accepted() -> None:
    opt = SGD(0.5)
    state = opt.init({"a": 1.0, "b": np.float32(2.0)})
    params = opt.get_params(opt.update(state, {"a": np.float32(2.0), "b": 4.0}))
    assert {name: float(leaf) for name, leaf in params.items()} == {"a": 0.0, "b": 0.0}


@pytest.mark.parametrize("rate", [-0.1, float("nan"), "fast"])
def test_a_learning_rate_is_a_schedule_or_a_finite_number_of_at_least_zero(rate: object) -> None:
    assert callable(SGD(optax.constant_schedule(0.1)).learning_rate)
    with pytest.raises(ValueError, match=r"SGD\(learning_rate=.*\): learning_rate must"):
        SGD(rate)  # type: ignore[arg-type]
