"""Clipping in front of another optimizer."""

import jax.numpy as jnp
import numpy as np
import pytest

from unspool.optimizers import SGD, SGDM, GradientClipOptimizer


def test_gradients_are_clipped_by_element() -> None:
    opt = GradientClipOptimizer(SGD(1.0), grad_clip=0.5)
    state = opt.update(opt.init(jnp.zeros(3)), jnp.asarray([-9.0, 0.25, 9.0]))
    assert opt.get_params(state).tolist() == [0.5, -0.25, -0.5]
    assert opt.name == "GradientClipOptimizer(SGD)"


def test_a_clip_that_lets_nothing_through_is_rejected() -> None:
    with pytest.raises(ValueError, match=r"grad_clip=0.0\): grad_clip must be positive"):
        GradientClipOptimizer(SGD(), grad_clip=0.0)


def test_momentum_accumulates_clipped_gradients() -> None:
    opt = GradientClipOptimizer(SGDM(1.0, momentum=0.5), grad_clip=1.0)
    state = opt.init(jnp.zeros(()))
    for gradient in (4.0, -0.5):
        state = opt.update(state, jnp.asarray(gradient))
    # Steps of 1 and of 0.5 * 1 - 0.5.
    np.testing.assert_allclose(opt.get_params(state), -1.0)


def test_the_state_is_that_of_the_clipped_optimizer() -> None:
    inner = SGDM(0.1)
    opt = GradientClipOptimizer(inner, grad_clip=9.0)
    state = opt.update(opt.init(jnp.ones(2), model_state=jnp.zeros(3)), jnp.ones(2), model_state=jnp.ones(3))
    np.testing.assert_allclose(inner.get_params(state), 0.9)
    assert opt.get_state(state).tolist() == [1.0, 1.0, 1.0]
    assert opt.get_params(opt.set_params(state, jnp.full(2, 7.0))).tolist() == [7.0, 7.0]
