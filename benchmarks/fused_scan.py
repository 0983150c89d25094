"""An outer update against a hand-written fused scan of the same inner steps at the same width (design.md's
first row).

The scan is what a careful person would write for this one problem and nothing else: no resets, no keys, no
gradient estimate. What the library costs beyond it is the price of generality.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from benchmarks.interleaved import Timing, compare
from unspool.learned_optimizers.base import LearnableAdam, LearnedOptimizer
from unspool.learned_optimizers.mlp_lopt import MLPLOpt
from unspool.outer_trainers.gradient_learner import SingleMachineGradientLearner
from unspool.outer_trainers.lopt_truncated_step import VectorizedLOptTruncatedStep
from unspool.outer_trainers.truncated_pes import TruncatedPES
from unspool.outer_trainers.truncation_schedule import LogUniformLengthSchedule
from unspool.tasks.base import TaskFamily, single_task_to_family
from unspool.tasks.fixed.image_mlp import ImageMLP_Digits8_Relu32
from unspool.tasks.quadratics import FixedDimQuadraticFamily

Tree = Any
DECAYS = (0.1, 0.5, 0.9, 0.99, 0.999, 0.9999)
TIMESCALES = (1, 3, 10, 30, 100, 300, 1e3, 3e3, 1e4, 3e4, 1e5)


@dataclasses.dataclass(frozen=True)
class Row:
    """One line of the table."""

    name: str
    update: Timing
    scan: Timing
    inner_steps: int

    def __str__(self) -> str:
        minimum = self.update.minimum_ms / self.scan.minimum_ms
        median = self.update.median_ms / self.scan.median_ms
        rate = self.inner_steps / (self.update.median_ms / 1e3)
        return (
            f"{self.name:<28} update {self.update.median_ms:8.3f} ms (min {self.update.minimum_ms:8.3f})   "
            f"fused scan {self.scan.median_ms:8.3f} ms (min {self.scan.minimum_ms:8.3f})   "
            f"ratio {median:5.2f} (of minima {minimum:5.2f})   {rate:10,.0f} inner steps/s"
        )


def quadratic(seconds: float) -> Row:
    """16 quadratics of 10 dimensions under LearnableAdam, truncation 50."""
    num_tasks, steps, dim = 16, 50, 10
    update = outer_update(FixedDimQuadraticFamily(dim), LearnableAdam(), num_tasks, steps)
    theta = LearnableAdam().init(jax.random.PRNGKey(0))
    thetas = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (2 * num_tasks,)), theta)
    params, target = jax.random.normal(jax.random.PRNGKey(1), (2, 2 * num_tasks, dim))

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

    return measured(
        "quadratic 16 x 50", update, lambda: scan(thetas, params, target), num_tasks * steps, seconds
    )


def mlp(seconds: float) -> Row:
    """8 MLPs 64-32-10 on 8x8 digits under MLPLOpt, truncation 20."""
    num_tasks, steps = 8, 20
    task, optimizer = ImageMLP_Digits8_Relu32(), MLPLOpt()
    update = outer_update(single_task_to_family(task), optimizer, num_tasks, steps)
    theta = optimizer.init(jax.random.PRNGKey(0))
    width = 2 * num_tasks
    thetas = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (width, *leaf.shape)), theta)
    params = jax.vmap(task.init)(jax.random.split(jax.random.PRNGKey(1), width))
    arrays = task.datasets.train.arrays
    batch_size = task.datasets.train.batch_size
    shape = (steps, num_tasks, batch_size)
    indices = jax.random.randint(jax.random.PRNGKey(2), shape, 0, len(arrays["label"]))

    @jax.jit
    def scan(thetas: Tree, params: Tree, arrays: Tree, indices: jax.Array) -> Tree:
        def step(carry: Tree, inputs: Tree) -> tuple[Tree, jax.Array]:
            params, momenta = carry
            index, count = inputs
            images = arrays["image"][index].reshape(num_tasks, batch_size, -1)
            labels = jax.nn.one_hot(arrays["label"][index], 10)
            pair = jax.tree.map(lambda leaf: jnp.concatenate([leaf, leaf]), (images, labels))
            loss, grad = jax.vmap(jax.value_and_grad(cross_entropy))(params, *pair)
            momenta = jax.tree.map(lambda m, g: m * DECAY_ROW + g[..., None] * (1 - DECAY_ROW), momenta, grad)
            clock = jnp.tanh(count / jnp.asarray(TIMESCALES) - 1)
            moved = jax.tree.map(
                lambda g, p, m: jax.vmap(per_parameter, in_axes=(0, 0, 0, 0, None))(thetas, g, p, m, clock),
                grad,
                params,
                momenta,
            )
            return (jax.tree.map(jnp.subtract, params, moved), momenta), loss

        momenta = jax.tree.map(lambda leaf: jnp.zeros((*leaf.shape, len(DECAYS))), params)
        return jax.lax.scan(step, (params, momenta), (indices, jnp.arange(float(steps))))

    return measured(
        "MLP 64-32-10, 8 x 20",
        update,
        lambda: scan(thetas, params, arrays, indices),
        num_tasks * steps,
        seconds,
    )


DECAY_ROW = jnp.asarray(DECAYS)


def cross_entropy(params: Tree, images: jax.Array, labels: jax.Array) -> jax.Array:
    """Of a two-layer relu network, mean over the batch."""
    first, second = params["mlp/~/linear_0"], params["mlp/~/linear_1"]
    hidden = jax.nn.relu(images @ first["w"] + first["b"])
    return -jnp.mean(jnp.sum(labels * jax.nn.log_softmax(hidden @ second["w"] + second["b"]), axis=-1))


def per_parameter(
    theta: Tree, grad: jax.Array, param: jax.Array, momenta: jax.Array, clock: jax.Array
) -> jax.Array:
    """MLPLOpt's step for one tensor."""
    features = jnp.concatenate([grad[..., None], param[..., None], momenta], axis=-1).reshape(
        -1, 2 + len(DECAYS)
    )
    features = features * jax.lax.rsqrt(1e-5 + jnp.mean(features**2, axis=0))
    features = jnp.concatenate([features, jnp.broadcast_to(clock, (len(features), len(TIMESCALES)))], axis=-1)
    for layer in range(3):
        weights = theta[f"mlp/~/linear_{layer}"]
        features = features @ weights["w"] + weights["b"]
        features = jax.nn.relu(features) if layer < 2 else features
    return (features[:, 0] * jnp.exp(features[:, 1] * 1e-3) * 1e-3).reshape(param.shape)


def outer_update(
    family: TaskFamily, optimizer: LearnedOptimizer, num_tasks: int, steps: int
) -> Callable[[], object]:
    """One update of `SingleMachineGradientLearner` with PES per call, state carried from call to call."""
    step = VectorizedLOptTruncatedStep(family, optimizer, LogUniformLengthSchedule(100, 1000), num_tasks)
    estimator = TruncatedPES(step, trunc_length=steps, steps_per_jit=math.gcd(10, steps))
    learner = SingleMachineGradientLearner(optimizer, [estimator], optax.adam(1e-3))
    key = jax.random.PRNGKey(0)
    state = learner.init(key)

    def update() -> object:
        nonlocal state
        state, loss, _ = learner.update(state, key)
        return loss

    return update


def measured(
    name: str, update: Callable[[], object], scan: Callable[[], object], model_steps: int, seconds: float
) -> Row:
    """A row; `model_steps` counts those of one side of the antithetic pairs."""
    timings = compare(update, scan, seconds_per_block=seconds)
    return Row(name, *timings, inner_steps=2 * model_steps)
