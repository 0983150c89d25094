"""What holds for every learned optimizer of the library."""

import pickle
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from unspool.learned_optimizers.base import (
    LearnableAdam,
    LearnableSGD,
    LearnableSGDM,
    LearnedOptimizer,
    learned_optimizer_from_opt,
)
from unspool.learned_optimizers.mlp_lopt import MLPLOpt
from unspool.optimizers import SGDM
from unspool.outer_trainers.lopt_truncated_step import VectorizedLOptTruncatedStep
from unspool.outer_trainers.truncation_schedule import ConstantTruncationSchedule
from unspool.tasks.quadratics import FixedDimQuadraticFamily

pytestmark = pytest.mark.with_x64

WITH_THETA = [LearnableSGD(), LearnableSGDM(), LearnableAdam(), MLPLOpt()]

every_learned_optimizer = pytest.mark.parametrize(
    "learned_opt", [*WITH_THETA, learned_optimizer_from_opt(SGDM())], ids=lambda learned_opt: learned_opt.name
)
every_one_with_theta = pytest.mark.parametrize(
    "learned_opt", WITH_THETA, ids=lambda learned_opt: learned_opt.name
)

PARAMS = {
    "leaf": jnp.asarray([1.0, -2.0, 0.5]),
    "nested": {"scalar": jnp.asarray(0.3), "pair": (jnp.full((2, 3), 0.25), jnp.zeros((3, 3, 2, 2)))},
    "scalar": jnp.asarray(-1.5),
}


def loss_fn(params: Any) -> jax.Array:
    return sum((jnp.sum(jnp.square(leaf - 1.0)) for leaf in jax.tree.leaves(params)), jnp.zeros(()))


def train(learned_opt: LearnedOptimizer, theta: Any, params: Any, num_steps: int = 3) -> Any:
    opt = learned_opt.opt_fn(theta, is_training=True)

    def step(state: Any, _: None) -> tuple[Any, None]:
        loss, grad = jax.value_and_grad(loss_fn)(opt.get_params(state))
        return opt.update(state, grad, loss=loss, key=jax.random.key(1)), None

    state, _ = jax.lax.scan(
        step, opt.init(params, num_steps=num_steps, key=jax.random.key(0)), length=num_steps
    )
    return opt.get_params(state)


def is_finite(tree: Any) -> bool:
    return all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(tree))


@every_learned_optimizer
@pytest.mark.parametrize(
    "params", [PARAMS, PARAMS["scalar"], PARAMS["leaf"]], ids=["tree", "scalar", "vector"]
)
def test_parameters_of_any_shape_and_nesting_are_trained(learned_opt: LearnedOptimizer, params: Any) -> None:
    theta = learned_opt.init(jax.random.key(0))
    trained = jax.jit(lambda params: train(learned_opt, theta, params))(params)
    assert jax.tree.map(jnp.shape, trained) == jax.tree.map(jnp.shape, params)
    assert is_finite(trained)
    assert loss_fn(trained) != loss_fn(params)


@every_one_with_theta
def test_theta_is_a_function_of_the_key_and_float32(learned_opt: LearnedOptimizer) -> None:
    theta, again = (learned_opt.init(jax.random.key(0)) for _ in range(2))
    jax.tree.map(np.testing.assert_array_equal, theta, again)
    assert {(leaf.dtype, leaf.weak_type) for leaf in jax.tree.leaves(theta)} == {
        (jnp.dtype("float32"), False)
    }


@every_one_with_theta
def test_vmap_over_theta_computes_what_a_loop_does(learned_opt: LearnedOptimizer) -> None:
    theta = learned_opt.init(jax.random.key(0))
    thetas = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf + 0.1, leaf - 0.2]), theta)
    batched = jax.jit(jax.vmap(lambda theta: train(learned_opt, theta, PARAMS)))(thetas)
    single = jax.jit(lambda theta: train(learned_opt, theta, PARAMS))
    for index in range(3):
        expected = single(jax.tree.map(lambda leaf, index=index: leaf[index], thetas))
        for actual, leaf in zip(jax.tree.leaves(batched), jax.tree.leaves(expected), strict=True):
            np.testing.assert_allclose(actual[index], leaf, rtol=1e-5, atol=1e-6)


@pytest.mark.promoting
@every_one_with_theta
def test_the_gradient_in_theta_is_finite_and_agrees_with_a_difference(learned_opt: LearnedOptimizer) -> None:
    theta = learned_opt.init(jax.random.key(0))
    outer_loss = jax.jit(lambda theta: loss_fn(train(learned_opt, theta, PARAMS)))
    grad = jax.jit(jax.grad(outer_loss))(theta)
    assert is_finite(grad)
    norm = jnp.sqrt(sum(jnp.sum(jnp.square(leaf)) for leaf in jax.tree.leaves(grad)))
    nearby = [
        outer_loss(jax.tree.map(lambda leaf, g, step=step: leaf + step * g / norm, theta, grad))
        for step in (0.05, -0.05)
    ]
    np.testing.assert_allclose((nearby[0] - nearby[1]) / 0.1, norm, rtol=0.05)


@pytest.mark.promoting
@every_learned_optimizer
def test_a_zero_gradient_trains_to_finite_parameters(learned_opt: LearnedOptimizer) -> None:
    at_the_minimum = jax.tree.map(jnp.ones_like, PARAMS)

    def outer_loss(theta: Any) -> jax.Array:
        return loss_fn(train(learned_opt, theta, at_the_minimum, num_steps=1))

    assert is_finite(jax.jit(jax.value_and_grad(outer_loss))(learned_opt.init(jax.random.key(0))))


@every_learned_optimizer
def test_equal_configurations_are_equal_and_pickle(learned_opt: LearnedOptimizer) -> None:
    twin = pickle.loads(pickle.dumps(learned_opt))
    assert twin == learned_opt
    assert hash(twin) == hash(learned_opt)


@every_learned_optimizer
def test_the_number_of_steps_may_be_traced(learned_opt: LearnedOptimizer) -> None:
    opt = learned_opt.opt_fn(learned_opt.init(jax.random.key(0)))
    state = jax.jit(lambda num_steps: opt.init(PARAMS, num_steps=num_steps))(5)
    assert state.iteration == 0


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (
            lambda: LearnableSGD(initial_lr=0.0),
            r"LearnableSGD\(initial_lr=0.0\): initial_lr must be positive",
        ),
        (lambda: LearnableSGDM(initial_momentum=1.0), r"initial_momentum must be in \[0, 1\)"),
        (lambda: LearnableAdam(initial_beta2=-0.1), r"initial_beta2 must be in \[0, 1\)"),
        (lambda: MLPLOpt(hidden_layers=0), r"MLPLOpt\(hidden_layers=0\): hidden_layers must be at least 1"),
    ],
)
def test_impossible_configurations_are_rejected(make: Any, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        make()


def test_an_opt_fn_without_is_training_is_called_without_it() -> None:
    class Plain(LearnableSGD):
        def opt_fn(self, theta: Any) -> Any:  # type: ignore[override]  # as the tutorials print it
            return LearnableSGD.opt_fn(self, theta)

    step = VectorizedLOptTruncatedStep(
        FixedDimQuadraticFamily(3), Plain(), ConstantTruncationSchedule(4), num_tasks=2
    )
    state = step.init_step_state(step.outer_init(jax.random.key(0)), None, jax.random.key(1))
    assert state.inner_step.shape == (2,)
    given = []

    class Asking(LearnableSGD):
        def opt_fn(self, theta: Any, is_training: bool = False) -> Any:
            given.append(is_training)
            return LearnableSGD.opt_fn(self, theta)

    Asking().opt_in_training(Asking().init(jax.random.key(0)))
    assert given == [True]
