"""How the forms of a task follow from each other, and families of one task."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from unspool.tasks.base import (
    Task,
    TaskFamily,
    sample_single_task_family,
    single_task_to_family,
    softmax_cross_entropy,
)
from unspool.tasks.quadratics import BatchQuadraticTask, QuadraticTask

KEY = jax.random.key(0)


class StatefulTask(Task):
    """Counts its losses in its model state."""

    def init_with_state(self, key: Any) -> Any:
        return jnp.ones(2), jnp.zeros((), jnp.int32)

    def loss_with_state_and_aux(self, params: Any, state: Any, key: Any, data: Any) -> Any:
        return jnp.sum(params), state + 1, {"first": params[0]}


class WithState(Task):
    def loss_with_state(self, params: Any, state: Any, key: Any, data: Any) -> Any:
        return params, state


class WithAux(Task):
    def loss_and_aux(self, params: Any, key: Any, data: Any) -> Any:
        return params, {"double": 2 * params}


class Bare(Task):
    pass


def test_everything_follows_from_the_fullest_form() -> None:
    params = jnp.ones(2)
    loss, state = StatefulTask().loss_with_state(params, jnp.int32(3), KEY, ())
    assert (loss, state) == (2.0, 4)


def test_the_plain_loss_follows_from_any_fuller_form() -> None:
    losses = [task.loss(jnp.float32(7.0), KEY, ()) for task in (WithState(), WithAux())]
    assert losses == [7.0, 7.0]


def test_aux_values_reach_callers_that_also_ask_for_state() -> None:
    loss, state, aux = WithAux().loss_with_state_and_aux(jnp.float32(7.0), None, KEY, ())
    assert (loss, state, aux) == (7.0, None, {"double": 14.0})


def test_a_model_state_reaches_callers_that_also_ask_for_aux_values() -> None:
    assert WithState().loss_with_state_and_aux(jnp.float32(1), 3, KEY, ()) == (1.0, 3, {})


@pytest.mark.parametrize("task", [QuadraticTask(2), WithAux()])
def test_a_model_state_is_not_dropped_by_a_task_that_has_none(task: Task) -> None:
    with pytest.raises(TypeError, match="does not define loss_with_state"):
        task.loss_with_state_and_aux(jnp.ones(2), jnp.zeros(3), KEY, ())


def test_a_task_with_model_state_has_no_stateless_initialisation() -> None:
    with pytest.raises(TypeError, match="call init_with_state"):
        StatefulTask().init(KEY)


def test_the_error_of_a_task_without_a_loss_names_what_to_define() -> None:
    with pytest.raises(NotImplementedError, match="Bare must define one of loss"):
        Bare().loss_with_state(1.0, None, KEY, ())
    with pytest.raises(NotImplementedError, match="Bare must define init"):
        Bare().init_with_state(KEY)


def test_an_override_that_some_callers_would_not_see_is_rejected() -> None:
    with pytest.raises(TypeError, match="Partial overrides loss but inherits loss_and_aux"):

        class Partial(WithAux):
            def loss(self, params: Any, key: Any, data: Any) -> Any:
                return params


def test_datasets_may_be_assigned_in_a_constructor() -> None:
    class Assigned(Task):
        def __init__(self) -> None:
            self.datasets = BatchQuadraticTask().datasets

    assert Bare().datasets is None
    assert Assigned().datasets is BatchQuadraticTask().datasets


def test_the_family_of_a_task_evaluates_on_the_evaluation_task() -> None:
    train, evaluation = QuadraticTask(3), BatchQuadraticTask()
    family = single_task_to_family(train, name="both", eval_task=evaluation)
    assert family.name == "both"
    assert family.sample_task(KEY) is train
    assert family.eval_task_fn(family.sample(KEY)) is evaluation
    assert (family.datasets, family.eval_datasets) == (None, evaluation.datasets)


def test_a_family_evaluates_on_itself_by_default() -> None:
    family = single_task_to_family(BatchQuadraticTask())
    assert family.name == "BatchQuadraticTask"
    assert family.eval_task_fn(family.sample(KEY)) == BatchQuadraticTask()
    assert family.eval_datasets is family.datasets


@pytest.mark.unchecked
def test_a_single_family_is_sampled_from_a_task_or_a_family() -> None:
    family = single_task_to_family(QuadraticTask(3))
    assert sample_single_task_family(KEY, QuadraticTask(3)) == family
    assert sample_single_task_family(KEY, family) is family
    with pytest.raises(TypeError, match="give a TaskFamily or a Task instance"):
        sample_single_task_family(KEY, QuadraticTask)  # type: ignore[arg-type]


def test_a_family_without_sample_cannot_be_built() -> None:
    with pytest.raises(TypeError, match="abstract"):
        TaskFamily()  # type: ignore[abstract]


def test_cross_entropy_of_uniform_logits_is_the_log_of_the_classes() -> None:
    entropy = softmax_cross_entropy(logits=jnp.zeros((3, 5)), labels=jax.nn.one_hot(jnp.arange(3), 5))
    np.testing.assert_allclose(entropy, np.full(3, np.log(5)), rtol=1e-6)
