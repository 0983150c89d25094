"""What holds for every optimizer of the library, a learned one among them."""

import functools
import pickle
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from unspool.learned_optimizers.base import LearnableAdam
from unspool.learned_optimizers.mlp_lopt import MLPLOpt
from unspool.optimizers import (
    SGD,
    SGDM,
    Adam,
    AdamW,
    GradientClipOptimizer,
    NAdamW,
    OptaxOptimizer,
    Optimizer,
    RMSProp,
    opt_to_optax_opt,
)

pytestmark = pytest.mark.with_x64

SCHEDULED = SGD(optax.constant_schedule(0.1))
CONFIGURED = [
    SGD(),
    SCHEDULED,
    SGDM(),
    Adam(),
    AdamW(),
    RMSProp(momentum=0.9, nesterov=True),
    NAdamW(),
    NAdamW(use_nesterov=False, use_bias_correction=False, l2_weight_decay=0.1, adamw_weight_decay=0.1),
    GradientClipOptimizer(Adam(), grad_clip=0.1),
]


def learned(learned_opt: Any) -> Optimizer:
    opt: Optimizer = learned_opt.opt_fn(learned_opt.init(jax.random.key(0)))
    return opt


every_optimizer = pytest.mark.parametrize(
    "opt",
    [*CONFIGURED, OptaxOptimizer(optax.lion(1e-3)), learned(LearnableAdam()), learned(MLPLOpt())],
    ids=lambda opt: opt.name,
)

PARAMS = {
    "matrix": jnp.arange(6.0).reshape(2, 3) / 6,
    "nested": (jnp.asarray(0.3), jnp.linspace(-1.0, 1.0, 4)),
    "half": jnp.ones((2, 2), jnp.bfloat16),
}


def loss_fn(params: Any) -> jax.Array:
    return sum((jnp.sum(jnp.square(leaf.astype(jnp.float32) - 2.0)) for leaf in jax.tree.leaves(params)), 0.0)


@functools.partial(jax.jit, static_argnums=0)
def step(opt: Optimizer, state: Any) -> Any:
    loss, grad = jax.value_and_grad(loss_fn)(opt.get_params(state))
    return opt.update(state, grad, loss=loss, key=jax.random.key(9), unknown_to_the_optimizer=1)


def assert_trees_close(left: object, right: object, rtol: float = 1e-5) -> None:
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=rtol, atol=1e-6), left, right)


@every_optimizer
def test_the_initial_state_holds_what_it_was_given(opt: Optimizer) -> None:
    state = opt.init(PARAMS, model_state={"mean": jnp.ones(2)}, num_steps=10, key=jax.random.key(0))
    assert_trees_close(opt.get_params_state(state), (PARAMS, {"mean": np.ones(2)}))
    assert state.iteration.dtype == jnp.int32
    assert state.iteration == 0


@every_optimizer
def test_structure_and_types_of_the_state_are_a_fixed_point_of_update(opt: Optimizer) -> None:
    weakly_typed = {**PARAMS, "weak": jnp.asarray(0.5)}
    state = opt.init(weakly_typed)
    after = jax.eval_shape(lambda state: step(opt, state), state)
    before = jax.eval_shape(lambda state: state, state)
    assert jax.tree.structure(after) == jax.tree.structure(before)
    for old, new in zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True):
        assert (old.shape, old.dtype, old.weak_type) == (new.shape, new.dtype, new.weak_type)


@every_optimizer
def test_every_update_counts_under_scan(opt: Optimizer) -> None:
    state, _ = jax.lax.scan(lambda state, _: (step(opt, state), None), opt.init(PARAMS), length=5)
    assert state.iteration == 5


@pytest.mark.parametrize("opt", CONFIGURED, ids=lambda opt: opt.name)
def test_training_lowers_the_loss(opt: Optimizer) -> None:
    state = step(opt, step(opt, opt.init(PARAMS)))
    assert loss_fn(opt.get_params(state)) < loss_fn(PARAMS)


@every_optimizer
def test_vmap_computes_what_a_loop_does(opt: Optimizer) -> None:
    scales = jnp.asarray([0.5, 1.0, 2.0])

    def train(scale: jax.Array) -> Any:
        state = opt.init(jax.tree.map(lambda leaf: leaf * scale.astype(leaf.dtype), PARAMS))
        return opt.get_params(step(opt, step(opt, state)))

    looped = jax.tree.map(lambda *leaves: jnp.stack(leaves), *[jax.jit(train)(scale) for scale in scales])
    batched = jax.jit(jax.vmap(train))(scales)
    # The half precision leaf rounds to 2^-8.
    assert_trees_close(batched, looped, rtol=1e-2)
    assert_trees_close({**batched, "half": 0}, {**looped, "half": 0})


@every_optimizer
def test_optax_makes_the_same_steps(opt: Optimizer) -> None:
    transformation = opt_to_optax_opt(opt, num_steps=3)
    params = {name: PARAMS[name] for name in ("matrix", "nested")}

    @jax.jit
    def optax_step(params: Any, optax_state: Any) -> Any:
        loss, grad = jax.value_and_grad(loss_fn)(params)
        updates, optax_state = transformation.update(grad, optax_state, params, value=loss)
        return optax.apply_updates(params, updates), optax_state

    state = opt.init(params, num_steps=3)
    optax_params, optax_state = params, transformation.init(params)
    for _ in range(3):
        state = step(opt, state)
        optax_params, optax_state = optax_step(optax_params, optax_state)
    assert_trees_close(optax_params, opt.get_params(state))


@every_optimizer
def test_parameters_can_be_replaced_alone(opt: Optimizer) -> None:
    state = opt.init(PARAMS)
    replaced = opt.set_params(state, None)
    assert opt.get_params(replaced) is None
    assert_trees_close(opt.set_params(replaced, PARAMS), state)


@every_optimizer
def test_a_model_state_is_carried_until_a_new_one_comes(opt: Optimizer) -> None:
    update = jax.jit(opt.update)
    state = update(opt.init(jnp.ones(2), model_state=jnp.zeros(2)), jnp.ones(2))
    assert opt.get_state(state).tolist() == [0.0, 0.0]
    state = update(state, jnp.ones(2), model_state=jnp.ones(2))
    assert opt.get_state(state).tolist() == [1.0, 1.0]


@pytest.mark.parametrize("opt", [opt for opt in CONFIGURED if opt != SCHEDULED], ids=lambda opt: opt.name)
def test_equal_configurations_are_equal_and_pickle(opt: Optimizer) -> None:
    twin = pickle.loads(pickle.dumps(opt))
    assert twin == opt
    assert hash(twin) == hash(opt)
