"""What single optimizers and adapters promise beyond the laws."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from unspool.optimizers import SGD, Adam, GradientClipOptimizer, OptaxOptimizer, Optimizer, opt_to_optax_opt


@dataclasses.dataclass
class RecordedState:
    params: Any
    state: Any
    iteration: int
    seen: dict[str, Any]


class Recorder(Optimizer):
    """Keeps its arguments in a dataclass."""

    def init(
        self, params: Any, model_state: Any = None, num_steps: Any = None, key: Any = None, **kw: Any
    ) -> Any:
        return RecordedState(params, model_state, 0, {"num_steps": num_steps})

    def update(
        self, opt_state: Any, grad: Any, loss: Any = None, model_state: Any = None, key: Any = None, **kw: Any
    ) -> Any:
        return dataclasses.replace(opt_state, seen={"loss": loss, "key": key, **kw})


def test_extra_arguments_are_passed_on_as_keywords_or_in_a_mapping() -> None:
    transformation = opt_to_optax_opt(Recorder(), num_steps=7)
    state = transformation.init(jnp.ones(2))
    assert state.seen == {"num_steps": 7}
    as_keywords = transformation.update(jnp.ones(2), state, jnp.ones(2), value=3.0, key="key", is_valid=True)
    as_mapping = transformation.update(
        jnp.ones(2), state, jnp.ones(2), extra_args={"loss": 3.0, "key": "key", "is_valid": True}
    )
    expected = {"loss": 3.0, "key": "key", "is_valid": True}
    assert [as_keywords[1].seen, as_mapping[1].seen] == [expected, expected]


def test_the_optax_state_holds_no_second_copy_of_the_parameters() -> None:
    assert opt_to_optax_opt(Adam()).init(jnp.ones(3)).params is None


def test_optax_needs_the_current_parameters() -> None:
    transformation = opt_to_optax_opt(SGD())
    state = transformation.init(jnp.ones(2))
    with pytest.raises(ValueError, match="SGD needs the current parameters"):
        transformation.update(jnp.ones(2), state)


def test_an_optimizer_is_one_link_of_an_optax_chain() -> None:
    chained = optax.chain(opt_to_optax_opt(SGD(1.0)), optax.scale(0.5))
    state = chained.init(jnp.ones(2))
    updates, _ = chained.update(jnp.asarray([2.0, 4.0]), state, jnp.ones(2), value=1.0)
    np.testing.assert_allclose(updates, [-1.0, -2.0])


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


def test_gradients_are_clipped_by_element() -> None:
    opt = GradientClipOptimizer(SGD(1.0), grad_clip=0.5)
    state = opt.update(opt.init(jnp.zeros(3)), jnp.asarray([-9.0, 0.25, 9.0]))
    assert opt.get_params(state).tolist() == [0.5, -0.25, -0.5]
    assert opt.name == "GradientClipOptimizer(SGD)"


def test_a_clip_that_lets_nothing_through_is_rejected() -> None:
    with pytest.raises(ValueError, match=r"grad_clip=0.0\): grad_clip must be positive"):
        GradientClipOptimizer(SGD(), grad_clip=0.0)


def test_states_are_edited_as_the_tutorials_do() -> None:
    state = Adam().init(jnp.zeros(2))
    assert state.replace(iteration=jnp.int32(7)).iteration == 7
    assert state._replace(iteration=jnp.int32(7)).iteration == 7


def test_adam_has_a_finite_outer_gradient_where_its_second_moment_is_zero() -> None:
    def trained(grad: jax.Array) -> jax.Array:
        opt = Adam()
        return opt.get_params(opt.update(opt.init(jnp.zeros(())), grad))

    assert jnp.isfinite(jax.grad(trained)(jnp.zeros(())))
