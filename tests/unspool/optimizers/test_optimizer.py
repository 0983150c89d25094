"""What the base class of optimizers does for states of any kind."""

import dataclasses
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import pytest

from unspool.optimizers import Optimizer
from unspool.optimizers.optimizer import carried_model_state


class Named(NamedTuple):
    params: Any
    state: Any


@dataclasses.dataclass(frozen=True)
class Frozen:
    params: Any
    state: Any


class Idle(Optimizer):
    """Makes no updates."""

    def init(self, params: Any, model_state: Any = None, *_: Any, **unused: Any) -> Any:
        return Named(params, model_state)

    def update(self, opt_state: Any, grad: Any, *_: Any, **unused: Any) -> Any:
        return opt_state


@pytest.mark.parametrize("kind", [Named, Frozen])
def test_only_the_parameters_of_a_state_are_replaced(kind: Any) -> None:
    before = kind({"w": jnp.zeros(2)}, jnp.ones(3))
    after = Idle().set_params(before, {"w": 2.0})
    params, state = Idle().get_params_state(after)
    assert type(after) is kind
    assert state is before.state
    assert (params["w"].dtype, params["w"].weak_type, float(params["w"])) == (jnp.float32, False, 2.0)


def test_parameters_that_no_gradient_moves_are_rejected() -> None:
    with pytest.raises(TypeError, match=r"params\['w'\] is int32"):
        Idle().set_params(Named(None, None), {"w": jnp.arange(2)})


def test_an_optimizer_is_named_after_its_class() -> None:
    assert Idle().name == "Idle"


def test_a_missing_model_state_keeps_the_old_one_and_a_new_one_gets_its_types() -> None:
    old = {"mean": jnp.zeros(2), "count": jnp.int32(3)}
    assert carried_model_state(old, None) is old
    carried = carried_model_state(old, {"mean": np.ones(2), "count": 4})
    assert {name: (leaf.dtype, leaf.weak_type) for name, leaf in carried.items()} == {
        "mean": (jnp.float32, False),
        "count": (jnp.int32, False),
    }
    assert (carried["mean"].tolist(), int(carried["count"])) == ([1.0, 1.0], 4)
