"""Parameters as callers give them: Python's numbers are arrays too, integers are refused by name."""

import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.unspool.optimizers.test_optimizer_laws import CONFIGURED
from unspool.eval_training import single_task_training_curves
from unspool.learned_optimizers.base import LearnableSGD
from unspool.learned_optimizers.mlp_lopt import MLPLOpt
from unspool.optimizers import SGD, Optimizer, opt_to_optax_opt
from unspool.outer_trainers.lopt_truncated_step import (
    SimpleVecLOptTruncatedStep,
    VectorizedLOptTruncatedStep,
)
from unspool.outer_trainers.truncation_schedule import ConstantTruncationSchedule
from unspool.params import as_params
from unspool.tasks.base import Task, single_task_to_family
from unspool.types import Batch, Params, PRNGKey, Scalar

KEY = jax.random.key(0)
LEARNED = MLPLOpt(hidden_size=4)
OPTIMIZERS = [*CONFIGURED, LEARNED.opt_fn(LEARNED.init(KEY))]


@pytest.mark.parametrize("opt", OPTIMIZERS, ids=lambda opt: opt.name)
def test_python_numbers_are_trained_like_arrays(opt: Optimizer) -> None:
    numbers, arrays = {"w": 1.0, "b": -0.5}, {"w": jnp.float32(1.0), "b": jnp.float32(-0.5)}
    of_numbers, of_arrays = (opt.update(opt.init(params), params) for params in (numbers, arrays))
    again = [opt.update(opt.set_params(state, numbers), numbers) for state in (of_numbers, of_arrays)]
    jax.tree.map(np.testing.assert_array_equal, *map(opt.get_params, again))

    transformation = opt_to_optax_opt(opt)
    updates, _ = transformation.update(numbers, transformation.init(numbers), numbers)
    jax.tree.map(
        np.testing.assert_array_equal, optax.apply_updates(arrays, updates), opt.get_params(of_arrays)
    )


@pytest.mark.parametrize("opt", OPTIMIZERS, ids=lambda opt: opt.name)
def test_integers_are_named_by_every_optimizer(opt: Optimizer) -> None:
    params = {"layer": {"w": jnp.ones(2), "count": jnp.zeros(3, jnp.int32)}}
    for init in (opt.init, opt_to_optax_opt(opt).init):
        with pytest.raises(TypeError, match=r"params\['layer'\]\['count'\] is int32\[3\]: .*floating-point"):
            init(params)


@pytest.mark.unchecked
@pytest.mark.parametrize(
    ("leaf", "words"),
    [
        (1, "int32[]"),
        (True, "bool[]"),
        ("x", "a str"),
        (np.zeros(2, np.int8), "int8[2]"),
        (KEY, "key<fry>[]"),
    ],
)
def test_whatever_gradients_cannot_move_is_named(leaf: Any, words: str) -> None:
    with pytest.raises(TypeError, match=rf"params\['a'\] is {re.escape(words)}"):
        as_params({"a": leaf})


class Counting(Task):
    """Keeps a counter among its parameters."""

    def init(self, key: PRNGKey) -> Params:
        return {"w": jnp.ones(2), "steps": jnp.zeros((), jnp.int32)}

    def loss(self, params: Params, key: PRNGKey, data: Batch) -> Scalar:
        return jnp.sum(params["w"] ** 2)


class Number(Task):
    """Trains one of Python's numbers."""

    def init(self, key: PRNGKey) -> Params:
        return {"w": 1.0}

    def loss(self, params: Params, key: PRNGKey, data: Batch) -> Scalar:
        return params["w"] ** 2


def initial_states(task: Task) -> list[Any]:
    lopt = LearnableSGD()
    family = single_task_to_family(task)
    steps = (
        VectorizedLOptTruncatedStep(family, lopt, ConstantTruncationSchedule(3), 2),
        SimpleVecLOptTruncatedStep(task, lopt, 2),
    )
    return [lambda step=step: step.init_step_state(lopt.init(KEY), None, KEY) for step in steps]


@pytest.mark.parametrize("index", [0, 1])
def test_a_tasks_integers_are_named_with_the_task(index: int) -> None:
    with pytest.raises(TypeError, match=r"Counting: params\['steps'\] is int32\[\]"):
        initial_states(Counting())[index]()
    state = initial_states(Number())[index]()
    assert state.inner_opt_state.params["w"].dtype == jnp.float32


@pytest.mark.unchecked
def test_curves_name_a_tasks_integers_and_train_its_numbers() -> None:
    with pytest.raises(TypeError, match=r"Counting: params\['steps'\]"):
        single_task_training_curves(Counting(), SGD(), 2, KEY)
    assert single_task_training_curves(Number(), SGD(0.5), 2, KEY)["train/loss"].tolist() == [1.0, 0.0]
