"""NAdamW against its definition in numpy."""

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from unspool.optimizers import NAdamW

GRADIENTS = np.array([[1.0, -2.0, 0.5], [0.3, 4.0, -1.0], [-2.0, 0.1, 0.0]])
START = np.array([0.5, -1.0, 2.0])


def definition(opt: NAdamW) -> np.ndarray:
    """Parameters after `GRADIENTS`, in float64."""
    params, m, v = START.copy(), np.zeros(3), np.zeros(3)
    for index, given in enumerate(GRADIENTS):
        gradient = given + opt.l2_weight_decay * params
        m = opt.beta1 * m + (1 - opt.beta1) * gradient
        v = opt.beta2 * v + (1 - opt.beta2) * gradient**2
        ahead = opt.beta1 * m + (1 - opt.beta1) * gradient if opt.use_nesterov else m
        rate = opt.learning_rate(index) if callable(opt.learning_rate) else opt.learning_rate
        if opt.use_bias_correction:
            rate *= np.sqrt(1 - opt.beta2 ** (index + 1)) / (1 - opt.beta1 ** (index + 1))
        params = params - rate * (ahead / (np.sqrt(v) + opt.epsilon) + opt.adamw_weight_decay * params)
    return params


@pytest.mark.promoting  # the bias correction is a power with an integer exponent
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"use_nesterov": False},
        {"use_bias_correction": False},
        {"l2_weight_decay": 0.3, "beta1": 0.5},
        {"adamw_weight_decay": 0.3, "beta2": 0.9, "epsilon": 0.1},
        {"learning_rate": lambda step: 0.1 / (1 + step)},
    ],
)
def test_steps_follow_the_definition(options: dict[str, Any]) -> None:
    opt = NAdamW(**{"learning_rate": 0.1, **options})
    state = opt.init(jnp.asarray(START))
    for gradient in GRADIENTS:
        state = opt.update(state, jnp.asarray(gradient))
    np.testing.assert_allclose(opt.get_params(state), definition(opt), rtol=1e-5)
    assert (int(state.iteration), int(state.optax_opt_state.iteration)) == (3, 3)


def test_the_defaults_are_those_of_the_paper() -> None:
    assert NAdamW() == NAdamW(1e-4, 0.9, 0.999, 1e-8, 0.0, 0.0, use_nesterov=True, use_bias_correction=True)
