"""Initialisation, updates and losses of inner training."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from unspool.optimizers import SGD, Optimizer
from unspool.steps.inner_training import evaluated, initial_opt_state, losses_of, updated
from unspool.tasks.base import Task

KEYS = jax.random.split(jax.random.PRNGKey(0), 4)
PARAMS = jnp.array([2.0, -1.0])
NOTHING: tuple[Any, ...] = ()


@dataclasses.dataclass(frozen=True)
class Counted(Task):
    """`x . x`, plus the number of evaluations so far; `half` is half of the loss."""

    def init_with_state(self, key: Any) -> Any:
        return PARAMS, jnp.int32(0)

    def loss_with_state_and_aux(self, params: Any, state: Any, key: Any, data: Any) -> Any:
        loss = jnp.sum(params**2) + state.astype(jnp.float32)
        return loss, state + 1, {"half": loss / 2, "draw": jax.random.uniform(key)}


class Recording(SGD):
    """Gradient descent that keeps the arguments of its methods."""

    def __init__(self) -> None:
        super().__init__(0.25)
        object.__setattr__(self, "given", [])

    def init(self, params: Any, *_: Any, **known: Any) -> Any:
        self.given.append(known)  # type: ignore[attr-defined]
        return super().init(params, **known)

    def update(self, opt_state: Any, grad: Any, *_: Any, **known: Any) -> Any:
        self.given.append(known)  # type: ignore[attr-defined]
        return super().update(opt_state, grad, **known)


@pytest.fixture
def optimizer() -> Any:
    return Recording()


def state_of(optimizer: Optimizer) -> Any:
    return initial_opt_state(optimizer, Counted(), KEYS[0], KEYS[1], num_steps=7)


def test_the_optimizer_is_initialised_with_the_length_the_model_state_and_its_key(optimizer: Any) -> None:
    state = state_of(optimizer)
    (given,) = optimizer.given
    assert (given["num_steps"], int(given["model_state"])) == (7, 0)
    np.testing.assert_array_equal(given["key"], KEYS[1])
    np.testing.assert_array_equal(optimizer.get_params(state), PARAMS)


def test_an_update_follows_the_gradient_and_reports_the_loss_before_it(optimizer: Any) -> None:
    state, loss = updated(optimizer, Counted(), state_of(optimizer), (KEYS[2], KEYS[3]), NOTHING)
    np.testing.assert_allclose(optimizer.get_params(state), PARAMS - 0.25 * 2 * PARAMS)
    assert (float(loss), int(optimizer.get_state(state))) == (5.0, 1)
    assert float(optimizer.given[-1]["loss"]) == 5.0
    np.testing.assert_array_equal(optimizer.given[-1]["key"], KEYS[3])


def test_an_aux_value_is_reported_while_the_loss_is_trained_on(optimizer: Any) -> None:
    keys = (KEYS[2], KEYS[3])
    state, reported = updated(optimizer, Counted(), state_of(optimizer), keys, NOTHING, aux_key="half")
    assert float(reported) == 2.5
    assert float(optimizer.given[-1]["loss"]) == 5.0
    np.testing.assert_allclose(optimizer.get_params(state), 0.5 * PARAMS)


def test_an_evaluation_is_of_the_current_parameters_and_keeps_the_state(optimizer: Any) -> None:
    state, _ = updated(optimizer, Counted(), state_of(optimizer), (KEYS[2], KEYS[3]), NOTHING)
    for _ in range(2):
        assert float(evaluated(optimizer, Counted(), state, KEYS[0], NOTHING)) == 5.0 / 4 + 1
    assert float(evaluated(optimizer, Counted(), state, KEYS[0], NOTHING, "half")) == (5.0 / 4 + 1) / 2


def test_the_key_of_the_loss_reaches_the_task() -> None:
    losses = [losses_of(Counted(), PARAMS, jnp.int32(0), key, NOTHING, "draw").reported for key in KEYS[:2]]
    expected = [jax.random.uniform(key) for key in KEYS[:2]]
    np.testing.assert_array_equal(losses, expected)


def test_an_unknown_aux_value_is_rejected_with_the_known_ones() -> None:
    with pytest.raises(
        ValueError, match=r"\(meta_loss_with_aux_key='best'\): Counted reports \['draw', 'half'\]"
    ):
        losses_of(Counted(), PARAMS, jnp.int32(0), KEYS[0], NOTHING, "best")


@pytest.mark.unchecked
def test_parameters_that_no_gradient_moves_are_rejected_with_the_task() -> None:
    class Whole(Counted):
        def init_with_state(self, key: Any) -> Any:
            return {"n": jnp.arange(2)}, None

    with pytest.raises(TypeError, match=r"Whole: params\['n'\] is int32\[2\]"):
        initial_opt_state(SGD(), Whole(), KEYS[0], KEYS[1], 7)
