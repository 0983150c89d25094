"""Initial thetas and ten inner steps against the reference implementation."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from unspool.learned_optimizers.base import LearnableAdam, LearnableSGD, LearnableSGDM, LearnedOptimizer
from unspool.learned_optimizers.mlp_lopt import MLPLOpt

pytestmark = pytest.mark.optimized

GOLDEN = Path(__file__).parents[2] / "data" / "golden" / "learned_optimizers.npz"
INNER_PARAMS = {"a": jnp.arange(6.0).reshape(2, 3) / 6, "b": jnp.arange(3.0) / 3 - 0.5, "c": jnp.asarray(0.3)}

every_golden = pytest.mark.parametrize(
    "learned_opt",
    [LearnableSGD(), LearnableSGDM(), LearnableAdam(), MLPLOpt()],
    ids=lambda learned_opt: learned_opt.name,
)


def loss_fn(params: dict[str, jax.Array]) -> jax.Array:
    return sum((jnp.sum(jnp.square(leaf - 1)) for leaf in jax.tree.leaves(params)), jnp.zeros(()))


def golden_tree(prefix: str) -> dict[str, np.ndarray]:
    golden = np.load(GOLDEN)
    return {name.removeprefix(prefix): golden[name] for name in golden.files if name.startswith(f"{prefix}[")}


def assert_golden(tree: object, prefix: str) -> None:
    leaves = {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree.leaves_with_path(tree)}
    expected = golden_tree(prefix)
    assert leaves.keys() == expected.keys()
    for name, leaf in leaves.items():
        np.testing.assert_allclose(leaf, expected[name], rtol=1e-5, atol=1e-7, err_msg=name)


@every_golden
def test_initial_theta(learned_opt: LearnedOptimizer) -> None:
    assert_golden(learned_opt.init(jax.random.PRNGKey(0)), f"{learned_opt.name}/theta")


@every_golden
def test_ten_steps(learned_opt: LearnedOptimizer) -> None:
    prefix = f"{learned_opt.name}/quad"
    key = jax.random.PRNGKey(42)
    opt = learned_opt.opt_fn(learned_opt.init(jax.random.PRNGKey(0)), is_training=True)
    states = [opt.init(INNER_PARAMS, None, num_steps=10, key=key)]

    @jax.jit
    def step(state: Any, index: int) -> Any:
        loss, grad = jax.value_and_grad(loss_fn)(opt.get_params(state))
        return opt.update(state, grad, loss=loss, key=jax.random.fold_in(key, index))

    for index in range(10):
        states.append(step(states[-1], index))
    for number in (1, 2, 3, 10):
        assert_golden(opt.get_params(states[number]), f"{prefix}/params_step{number}")
    losses = [loss_fn(opt.get_params(state)) for state in states]
    np.testing.assert_allclose(losses, np.load(GOLDEN)[f"{prefix}/losses"], rtol=1e-5)
