"""Five steps of each hand-designed optimizer against the reference implementation."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from unspool.optimizers import SGD, SGDM, Adam, AdamW, GradientClipOptimizer, NAdamW, Optimizer, RMSProp

pytestmark = pytest.mark.optimized

GOLDEN = Path(__file__).parents[2] / "data" / "golden" / "optimizers.npz"
OPTIMIZERS = {
    "SGD": SGD(0.1),
    "SGDM": SGDM(0.05, 0.9),
    "Adam": Adam(0.1),
    "RMSProp": RMSProp(0.01),
    "AdamW": AdamW(0.1),
    "NAdamW": NAdamW(),
    "GradientClip(SGD)": GradientClipOptimizer(SGD(0.1), 0.5),
}


def loss_fn(params: dict[str, jax.Array]) -> jax.Array:
    return sum((jnp.sum(jnp.square(leaf - 1)) for leaf in jax.tree.leaves(params)), jnp.zeros(()))


@pytest.mark.parametrize(("name", "opt"), OPTIMIZERS.items(), ids=OPTIMIZERS)
def test_five_steps(name: str, opt: Optimizer) -> None:
    golden = np.load(GOLDEN)
    params = {"a": jnp.arange(6.0).reshape(2, 3) / 6, "b": jnp.arange(3.0) / 3 - 0.5, "c": jnp.asarray(0.3)}
    state = opt.init(params, num_steps=10)
    for index in range(5):
        loss, grad = jax.value_and_grad(loss_fn)(opt.get_params(state))
        np.testing.assert_allclose(loss, golden[f"{name}/losses"][index], rtol=1e-5)
        state = opt.update(state, grad, loss=loss)
        for path, leaf in jax.tree.leaves_with_path(opt.get_params(state)):
            expected = golden[f"{name}/params_step{index + 1}{jax.tree_util.keystr(path)}"]
            np.testing.assert_allclose(leaf, expected, rtol=1e-5, atol=1e-7)
