"""Influence balancing: its matrix, its fixed point and its losses."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.unspool.systems.examples import unroll
from unspool.systems.influence_balancing import InfluenceBalancing

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


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_units": 0}, "num_units must be at least 1"),
        ({"num_positive": 24}, "no more than num_units=23"),
        ({"loss_every": 0}, "loss_every must be at least 1"),
        ({"initial_drive": float("nan")}, "must be a finite number"),
        ({"stagger": 5}, "episodes that never end"),
        ({"episode_length": 10, "loss_every": 3}, "a multiple of loss_every=3"),
    ],
)
def test_options_out_of_range_are_rejected(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        InfluenceBalancing(**arguments)
