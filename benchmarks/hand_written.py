"""The inner steps of two meta-training problems, written by hand for these problems only: one scan, without
resets, keys or a gradient estimate.

The difference between the library and these programs is the cost of generality.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from unspool.learned_optimizers.base import LearnableAdam
from unspool.learned_optimizers.mlp_lopt import MLPLOpt
from unspool.tasks.fixed.image_mlp import ImageMLP

Tree = Any
Scan = Callable[[], object]
DECAYS = (0.1, 0.5, 0.9, 0.99, 0.999, 0.9999)
TIMESCALES = (1, 3, 10, 30, 100, 300, 1e3, 3e3, 1e4, 3e4, 1e5)
TENSOR_FEATURES = 2 + len(DECAYS)


def quadratic_scan(num_tasks: int, steps: int, dim: int) -> Scan:
    """Adam on both members of `num_tasks` antithetic pairs."""
    width = 2 * num_tasks
    theta = LearnableAdam().init(jax.random.PRNGKey(0))
    thetas = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (width,)), theta)
    params, target = jax.random.normal(jax.random.PRNGKey(1), (2, width, dim))

    @jax.jit
    def scan(thetas: Tree, params: jax.Array, target: jax.Array) -> Tree:
        rate = jnp.exp(thetas["log_lr"])[:, None]
        beta1, beta2 = (1 - jnp.exp(thetas[f"one_minus_beta{i}"])[:, None] for i in (1, 2))
        epsilon = jnp.exp(thetas["log_epsilon"])[:, None]

        def step(carry: Tree, count: jax.Array) -> tuple[Tree, jax.Array]:
            params, mu, nu = carry
            grad = 2 * (params - target)
            mu = beta1 * mu + (1 - beta1) * grad
            nu = beta2 * nu + (1 - beta2) * grad**2
            moved = (mu / (1 - beta1**count)) / (jnp.sqrt(nu / (1 - beta2**count) + 1e-8) + epsilon)
            return (params - rate * moved, mu, nu), jnp.sum((params - target) ** 2, axis=-1)

        zeros = jnp.zeros_like(params)
        return jax.lax.scan(step, (params, zeros, zeros), jnp.arange(1.0, steps + 1))

    return lambda: scan(thetas, params, target)


def mlp_scan(task: ImageMLP, num_tasks: int, steps: int, *, features_first: bool) -> Scan:
    """`MLPLOpt` on both members of `num_tasks` antithetic pairs.

    Args:
        task: the task that is trained.
        num_tasks: number of pairs.
        steps: length of the scan.
        features_first: use the fast layout of the library: features as rows, all tensors in one product, and
            the contribution of the time features to the first layer as a bias. Otherwise use the
            straightforward layout, features last and one product per tensor.
    """
    width = 2 * num_tasks
    theta = MLPLOpt().init(jax.random.PRNGKey(0))
    thetas = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (width, *leaf.shape)), theta)
    params = jax.vmap(task.init)(jax.random.split(jax.random.PRNGKey(1), width))
    train = task.datasets.train
    shape = (steps, num_tasks, train.batch_size)
    indices = jax.random.randint(jax.random.PRNGKey(2), shape, 0, len(train.arrays["label"]))
    axis = 0 if features_first else -1
    update = _rows_update if features_first else _columns_update

    @jax.jit
    def scan(thetas: Tree, params: Tree, arrays: Tree, indices: jax.Array) -> Tree:
        def train_step(carry: Tree, inputs: Tree) -> tuple[Tree, jax.Array]:
            params, momenta = carry
            index, count = inputs
            images = arrays["image"][index].reshape(*index.shape, -1)
            labels = jax.nn.one_hot(arrays["label"][index], 10)
            pair = jax.tree.map(lambda leaf: jnp.concatenate([leaf, leaf]), (images, labels))
            loss, grad = jax.vmap(jax.value_and_grad(_cross_entropy))(params, *pair)
            clock = jnp.tanh(count / jnp.asarray(TIMESCALES) - 1)
            step = jax.vmap(update, in_axes=(0, 0, 0, 0, None))
            return step(thetas, params, momenta, grad, clock), loss

        momenta = jax.vmap(lambda one: jax.tree.map(lambda leaf: _momenta_like(leaf, axis), one))(params)
        return jax.lax.scan(train_step, (params, momenta), (indices, jnp.arange(float(steps))))

    return lambda: scan(thetas, params, train.arrays, indices)


def _cross_entropy(params: Tree, images: jax.Array, labels: jax.Array) -> jax.Array:
    """Returns the loss of a two-layer relu network, mean over the batch."""
    first, second = params["mlp/~/linear_0"], params["mlp/~/linear_1"]
    hidden = jax.nn.relu(images @ first["w"] + first["b"])
    return -jnp.mean(jnp.sum(labels * jax.nn.log_softmax(hidden @ second["w"] + second["b"]), axis=-1))


def _momenta_like(tensor: jax.Array, axis: int) -> jax.Array:
    return jnp.zeros((len(DECAYS), *tensor.shape) if axis == 0 else (*tensor.shape, len(DECAYS)))


def _columns_update(
    theta: Tree, params: Tree, momenta: Tree, grad: Tree, clock: jax.Array
) -> tuple[Tree, Tree]:
    """Features last, tensor by tensor."""
    decay = jnp.asarray(DECAYS)
    momenta = jax.tree.map(lambda m, g: m * decay + g[..., None] * (1 - decay), momenta, grad)

    def stepped(grad: jax.Array, param: jax.Array, momenta: jax.Array) -> jax.Array:
        features = jnp.concatenate([grad[..., None], param[..., None], momenta], axis=-1)
        features = features.reshape(-1, TENSOR_FEATURES)
        features = features * jax.lax.rsqrt(1e-5 + jnp.mean(features**2, axis=0))
        of_time = jnp.broadcast_to(clock, (len(features), len(TIMESCALES)))
        features = jnp.concatenate([features, of_time], axis=-1)
        for layer in range(3):
            weights = theta[f"mlp/~/linear_{layer}"]
            features = features @ weights["w"] + weights["b"]
            features = jax.nn.relu(features) if layer < 2 else features
        return param - (features[:, 0] * jnp.exp(features[:, 1] * 1e-3) * 1e-3).reshape(param.shape)

    return jax.tree.map(stepped, grad, params, momenta), momenta


def _rows_update(theta: Tree, params: Tree, momenta: Tree, grad: Tree, clock: jax.Array) -> tuple[Tree, Tree]:
    """Features first, all tensors side by side."""

    def decayed(momenta: jax.Array, grad: jax.Array) -> jax.Array:
        decay = jnp.asarray(DECAYS).reshape(-1, *(1,) * grad.ndim)
        return momenta * decay + grad * (1 - decay)

    momenta = jax.tree.map(decayed, momenta, grad)
    leaves, treedef = jax.tree.flatten(params)
    rows = jnp.concatenate(
        [
            jnp.concatenate([_normalised(tensor.reshape(-1, param.size)) for tensor in (g, param, m)])
            for g, param, m in zip(jax.tree.leaves(grad), leaves, jax.tree.leaves(momenta), strict=True)
        ],
        axis=1,
    )
    for layer in range(3):
        weights = theta[f"mlp/~/linear_{layer}"]
        weight, bias = weights["w"], weights["b"]
        if layer == 0:
            weight, bias = weight[:TENSOR_FEATURES], bias + clock @ weight[TENSOR_FEATURES:]
        rows = weight.T @ (jax.nn.relu(rows) if layer else rows) + bias[:, None]
    return jax.tree.unflatten(treedef, _stepped(leaves, rows[0] * jnp.exp(rows[1] * 1e-3) * 1e-3)), momenta


def _normalised(rows: jax.Array) -> jax.Array:
    return rows * jax.lax.rsqrt(1e-5 + jnp.mean(rows**2, axis=1, keepdims=True))


def _stepped(leaves: Sequence[jax.Array], steps: jax.Array) -> list[jax.Array]:
    stepped, start = [], 0
    for leaf in leaves:
        stepped.append(leaf - steps[start : start + leaf.size].reshape(leaf.shape))
        start += leaf.size
    return stepped
