"""What is known of each system: values from the papers, closed forms, and what it refuses."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.unspool.systems.examples import SYSTEMS, example, unroll
from unspool.systems.influence_balancing import InfluenceBalancing
from unspool.systems.learning_rate_ramp import LearningRateRamp, height
from unspool.systems.lorenz import LorenzFit
from unspool.systems.pendulum import PendulumSwingUp, policy

KEY = jax.random.PRNGKey(0)


def first_theta(system: Any) -> Any:
    return system.outer_init(KEY)


@pytest.mark.parametrize(("drive", "loss"), [(0.5, 8.0), (-1 / 6, 0.0), (0.0, 0.5)])
def test_influence_balancing_converges_to_its_fixed_point(drive: float, loss: float) -> None:
    _, out = unroll(InfluenceBalancing(), {"drive": jnp.float32(drive)}, 500)
    np.testing.assert_allclose(out.loss[-1], loss, atol=1e-5)


def test_influence_balancing_is_a_matrix_and_a_drive() -> None:
    system = InfluenceBalancing()
    matrix = 0.5 * np.eye(23) + 0.5 * np.eye(23, k=1)
    sign = np.array([1.0] * 10 + [-1.0] * 13)
    units = np.arange(23.0)
    expected = matrix @ units + 0.25 * sign
    np.testing.assert_allclose(system.moved({"drive": 0.25}, jnp.asarray(units)), expected, rtol=1e-6)


def test_influence_balancing_is_pushed_the_wrong_way_at_first() -> None:
    system = InfluenceBalancing()
    settled, _ = unroll(system, {"drive": jnp.float32(0.5)}, 500)

    def next_loss(drive: jax.Array) -> jax.Array:
        return system.loss(system.moved({"drive": drive}, settled.units))

    def loss_in_the_long_run(drive: jax.Array) -> jax.Array:
        return unroll(system, {"drive": drive}, 500)[1].loss[-1]

    soon, late = (jax.grad(loss)(jnp.float32(0.5)) for loss in (next_loss, loss_in_the_long_run))
    np.testing.assert_allclose((soon, late), (-4.0, 24.0), rtol=1e-4)


def test_each_unit_may_have_its_own_drive() -> None:
    system = InfluenceBalancing(per_unit_theta=True)
    _, of_units = unroll(system, first_theta(system), 50)
    _, of_one = unroll(InfluenceBalancing(), first_theta(InfluenceBalancing()), 50)
    np.testing.assert_allclose(of_units.loss, of_one.loss, rtol=1e-6)


def test_only_every_so_many_steps_have_a_loss() -> None:
    sparse, dense = (unroll(InfluenceBalancing(loss_every=n), {"drive": 0.5}, 9)[1] for n in (3, 1))
    assert np.flatnonzero(sparse.mask).tolist() == [2, 5, 8]
    np.testing.assert_array_equal(sparse.loss, np.where(sparse.mask, dense.loss, 0.0))


def test_a_system_without_an_episode_length_is_never_reset() -> None:
    _, out = unroll(InfluenceBalancing(), {"drive": 0.5}, 300)
    assert not np.any(out.is_done)
    assert out.episode_length is None


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


def test_the_learning_rate_ramp_has_the_known_initial_loss() -> None:
    system = LearningRateRamp()
    _, out = unroll(system, first_theta(system), 100)
    np.testing.assert_allclose(np.sum(out.loss), 2487.8, rtol=1e-4)


def test_the_learning_rate_ramp_has_the_known_optimum() -> None:
    system = LearningRateRamp()

    def total_loss(log_start: jax.Array, log_end: jax.Array) -> jax.Array:
        return jnp.sum(unroll(system, {"log_start": log_start, "log_end": log_end}, 100)[1].loss)

    grid = jnp.meshgrid(jnp.linspace(2.0, 3.5, 61), jnp.linspace(-5.0, -3.0, 41))
    lowest = jnp.min(jax.vmap(jax.vmap(total_loss))(*grid))
    np.testing.assert_allclose(lowest, 556.7, rtol=0.01)


def test_the_learning_rate_ramp_goes_from_its_start_to_its_end() -> None:
    state, _ = unroll(LearningRateRamp(episode_length=4), {"log_start": -3.0, "log_end": -1.0}, 3)
    point = jnp.ones(2)
    for share in (0.0, 0.25, 0.5):
        rate = (1 - share) * jnp.exp(-3.0) + share * jnp.exp(-1.0)
        point = point - rate * jax.grad(height)(point)
    np.testing.assert_allclose(state.point, point, rtol=1e-6)


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


@pytest.mark.parametrize("name", SYSTEMS)
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"episode_length": 0}, r"\(episode_length=0\): episode_length must be at least 1"),
        ({"episode_length": 2.5}, r"\(episode_length=2.5\)"),
        ({"stagger": -1}, r"\(stagger=-1\): stagger must not be negative"),
        ({"episode_length": 10, "stagger": 4}, r"\(stagger=4\): episode_length=10 must be a multiple"),
    ],
)
def test_impossible_episodes_are_rejected_by_name(name: str, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"{name}{message}"):
        SYSTEMS[name](**arguments)


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("InfluenceBalancing", {"num_units": 0}, "num_units must be at least 1"),
        ("InfluenceBalancing", {"num_positive": 24}, "no more than num_units=23"),
        ("InfluenceBalancing", {"loss_every": 0}, "loss_every must be at least 1"),
        ("InfluenceBalancing", {"initial_drive": float("nan")}, "must be a finite number"),
        ("InfluenceBalancing", {"stagger": 5}, "episodes that never end"),
        ("InfluenceBalancing", {"episode_length": 10, "loss_every": 3}, "a multiple of loss_every=3"),
        ("PendulumSwingUp", {"hidden_size": True}, "hidden_size"),
        ("PendulumSwingUp", {"cost": "dense"}, "choose one of 'smooth', 'sparse'"),
    ],
)
def test_impossible_options_are_rejected_by_name(name: str, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SYSTEMS[name](**arguments)


def test_equal_configurations_are_equal_and_hashable() -> None:
    assert hash(example("LorenzFit")) == hash(example("LorenzFit"))
    assert example("LorenzFit") == example("LorenzFit")
