"""The pendulum: its energy, its initial states and its costs."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.unspool.systems.examples import unroll
from unspool.systems.pendulum import PendulumSwingUp, policy

KEY = jax.random.PRNGKey(0)


def first_theta(system: Any) -> Any:
    return system.outer_init(KEY)


def energy(state: Any) -> Any:
    return 0.5 * state.speed**2 + 15 * (jnp.cos(state.angle) - 1)


def test_the_pendulum_without_a_motor_keeps_its_energy() -> None:
    system = PendulumSwingUp()
    idle = jax.tree.map(jnp.zeros_like, first_theta(system))
    before, after = (unroll(system, idle, steps)[0] for steps in (1, 150))
    assert policy(idle, before.angle, before.speed) == 0
    np.testing.assert_allclose(energy(after), energy(before), atol=3.0)  # of 30 that a full swing takes


def test_every_episode_of_the_pendulum_has_its_own_initial_state() -> None:
    system = PendulumSwingUp(episode_length=1)
    _, out = unroll(system, jax.tree.map(jnp.zeros_like, first_theta(system)), 6)
    assert len(set(out.loss.tolist())) == 6


def test_the_sparse_cost_has_no_gradient() -> None:
    def mean_loss(theta: Any, cost: Any) -> jax.Array:
        return jnp.mean(unroll(PendulumSwingUp(cost=cost), theta, 100)[1].loss)

    theta = first_theta(PendulumSwingUp())
    sparse, smooth = (jax.grad(mean_loss)(theta, cost) for cost in ("sparse", "smooth"))
    assert all(np.all(leaf == 0) for leaf in jax.tree.leaves(sparse))
    assert all(np.any(leaf != 0) for leaf in jax.tree.leaves(smooth))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"hidden_size": True}, "hidden_size"),
        ({"cost": "dense"}, "choose one of 'smooth', 'sparse'"),
    ],
)
def test_options_out_of_range_are_rejected(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PendulumSwingUp(**arguments)
