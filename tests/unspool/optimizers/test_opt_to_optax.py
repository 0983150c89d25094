"""Optimizers as optax transformations."""

import dataclasses
from typing import Any

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from unspool.optimizers import SGD, Adam, Optimizer, opt_to_optax_opt


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


def test_integer_gradients_and_parameters_are_rejected_by_name() -> None:
    transformation = opt_to_optax_opt(SGD())
    with pytest.raises(TypeError, match=r"params is int32\[2\]"):
        transformation.init(jnp.arange(2))
    state = transformation.init(jnp.ones(2))
    with pytest.raises(TypeError, match=r"updates is int32\[2\]"):
        transformation.update(jnp.arange(2), state, jnp.ones(2))
