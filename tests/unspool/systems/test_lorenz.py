"""The fit of the Lorenz system: known losses, and one step by hand."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tests.unspool.systems.examples import example, unroll
from unspool.systems.lorenz import LorenzFit

KEY = jax.random.PRNGKey(0)


def first_theta(system: Any) -> Any:
    return system.outer_init(KEY)


def test_the_lorenz_fit_has_the_papers_loss_at_first_and_none_at_the_true_theta() -> None:
    system = LorenzFit()
    first, true = (
        unroll(system, theta, 2000)[1].loss for theta in (first_theta(system), system.true_theta())
    )
    np.testing.assert_allclose(np.mean(first), 354, rtol=0.01)
    assert np.mean(true) < 1e-2  # not 0: the system is chaotic, and exp(log(10)) is not 10 in float32


def test_the_lorenz_fit_compares_z_after_each_euler_step() -> None:
    _, out = unroll(LorenzFit(), {"log_a": jnp.float32(0.0), "log_r": jnp.float32(0.0)}, 2)
    x, y = 1.2 + 0.005 * 0.1, 1.3 + 0.005 * (1.2 * (1 - 1.6) - 1.3)
    true_x, true_y = 1.2 + 0.005 * 1.0, 1.3 + 0.005 * (1.2 * (28 - 1.6) - 1.3)
    # z depends on theta through x and y only, hence from the second step on.
    np.testing.assert_allclose(out.loss[0], 0.0, atol=1e-10)
    np.testing.assert_allclose(out.loss[1], (0.005 * (x * y - true_x * true_y)) ** 2, rtol=1e-3)


def test_equal_configurations_are_equal_and_hashable() -> None:
    assert hash(example("LorenzFit")) == hash(example("LorenzFit"))
    assert example("LorenzFit") == example("LorenzFit")
