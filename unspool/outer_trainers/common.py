"""What the estimators share: perturbations, unrolls, antithetic pairs and the weighting of losses.

Notation: `N` tasks, `T` steps of a truncation, std sigma. A perturbation already contains its std. The loss
difference of an antithetic pair is `delta = loss(theta + perturbation) - loss(theta - perturbation)`, and its
contribution `perturbation * delta / (2 sigma^2)`.
"""

from typing import Any, Literal, NamedTuple, cast, get_args

import jax
import jax.numpy as jnp

from unspool.outer_trainers.gradient_estimator import GradientEstimatorOut, Metrics, UnrollInfo, is_streamed
from unspool.outer_trainers.truncated_step import TruncatedUnrollOut, UnrollState, VectorizedStep
from unspool.types import Batch, PRNGKey, PyTree, Theta

Divergence = Literal["mask", "clip", "fail"]
"""What becomes of a task with a loss that is not finite. mask: it contributes nothing to this estimate, and
is counted. clip: its loss difference counts as the bound `clip_loss_diff`, with the sign of the worse side.
fail: the estimate is not finite, and whoever aggregates refuses it."""


def sample_perturbations(theta: Theta, key: PRNGKey, std: float) -> Theta:
    """Gaussian noise like theta with standard deviation `std`. Consumes `key`."""
    leaves, treedef = jax.tree.flatten(theta)
    keys = jax.random.split(key, len(leaves))
    noise = [
        jax.random.normal(k, jnp.shape(leaf), jnp.result_type(leaf)) * std
        for k, leaf in zip(keys, leaves, strict=True)
    ]
    return jax.tree.unflatten(treedef, noise)


def vector_sample_perturbations(
    theta: Theta, key: PRNGKey, std: float, num_samples: int
) -> tuple[Theta, Theta, Theta]:
    """`(noise, theta + noise, theta - noise)`, leaves `[num_samples, ...]`, independent. Consumes `key`."""
    keys = jax.random.split(key, num_samples)
    noise = jax.vmap(lambda one: sample_perturbations(theta, one, std))(keys)
    return noise, jax.tree.map(jnp.add, theta, noise), jax.tree.map(jnp.subtract, theta, noise)


class Inputs(NamedTuple):
    """What all steps of an unroll get beside theta, their state and a key.

    Attributes:
        data: `ResidentData`, or batches with leaves `[num_steps, N, ...]`.
        outer_state: passed to the step.
        num_steps_override: the episode's length where the step's own schedule has none.
    """

    data: Batch
    outer_state: Any
    num_steps_override: jax.Array | int | None = None


def unroll(
    step: VectorizedStep,
    theta: Theta,
    state: UnrollState,
    key: PRNGKey,
    num_steps: int,
    inputs: Inputs,
    *,
    theta_is_vector: bool,
    rematerialize: bool = False,
) -> tuple[UnrollState, TruncatedUnrollOut]:
    """`num_steps` steps of every task; leaves of the output `[num_steps, N, ...]`. Consumes `key`.

    Args:
        step: the system.
        theta: for all tasks, or with `theta_is_vector` one each.
        state: where the tasks stand, leaves `[N, ...]`.
        key: split once per step.
        num_steps: static.
        inputs: what all steps get.
        theta_is_vector: whether leaves of theta lead with `[N]`.
        rematerialize: recompute a step in the backward pass instead of storing what it computed.
    """
    data, outer_state, num_steps_override = inputs
    streamed = is_streamed(data)

    def one_step(state: UnrollState, xs: tuple[PRNGKey, Batch]) -> tuple[UnrollState, TruncatedUnrollOut]:
        step_key, batch = xs
        batch = batch if streamed else data
        return step.unroll_step(
            theta, state, step_key, batch, outer_state, theta_is_vector, num_steps_override
        )

    body = jax.checkpoint(one_step) if rematerialize else one_step
    keys = step.keys_of_steps(jax.random.split(key, num_steps))
    state, out = jax.lax.scan(body, state, (keys, data if streamed else None), length=num_steps)
    return state, out


class Pair(NamedTuple):
    """Both members of an antithetic pair."""

    pos: PyTree
    neg: PyTree


def antithetic_unroll(
    step: VectorizedStep,
    theta: Pair,
    state: Pair,
    key: PRNGKey,
    num_steps: int,
    inputs: Inputs,
    *,
    stacked: bool,
) -> tuple[Pair, TruncatedUnrollOut]:
    """Unrolls both members with the same key and data; leaves of the output `[2, num_steps, N, ...]`.

    The positive member comes first. With `stacked` they run as one unroll of twice the width, and what does
    not depend on theta (keys, batches) is computed once; else one after the other, in half the memory.
    """

    def one_member(theta: Theta, state: UnrollState) -> tuple[UnrollState, TruncatedUnrollOut]:
        return unroll(step, theta, state, key, num_steps, inputs, theta_is_vector=True)

    thetas, states = stack_pair(theta), stack_pair(state)
    if stacked:
        states, out = jax.vmap(one_member)(thetas, states)
    else:
        states, out = jax.lax.map(lambda member: one_member(*member), (thetas, states))
    return unstack_pair(states), out


def stack_pair(pair: Pair) -> PyTree:
    """Leaves `[2, ...]`, positive first."""
    return jax.tree.map(lambda pos, neg: jnp.stack([pos, neg]), pair.pos, pair.neg)


def unstack_pair(tree: PyTree) -> Pair:
    """The inverse of `stack_pair`."""
    return Pair(*(jax.tree.map(lambda leaf, side=side: leaf[side], tree) for side in (0, 1)))


class LossDifference(NamedTuple):
    """Losses of an antithetic pair, step by step, once the divergence policy has been applied.

    Attributes:
        delta: `[T, N]`, zero where `valid` is False.
        mean: `[T, N]`, the mean of both sides, zero where `valid` is False.
        valid: `[T, N]` bool, the (step, task) pairs that count.
        diverged: `[N]` bool.
    """

    delta: jax.Array
    mean: jax.Array
    valid: jax.Array
    diverged: jax.Array

    @property
    def weight(self) -> jax.Array:
        """`[]` float32, the number of valid pairs."""
        return jnp.sum(self.valid, dtype=jnp.float32)

    @property
    def mean_loss(self) -> jax.Array:
        """`[]`, over the valid pairs."""
        return masked_mean(jnp.sum(self.mean), self.weight)


def loss_difference(
    pos: jax.Array, neg: jax.Array, mask: jax.Array, divergence: Divergence, clip_loss_diff: float | None
) -> LossDifference:
    """Applies the divergence policy to losses `[T, N]`, of which those with `mask` False do not count."""
    delta = pos - neg
    finite = jnp.isfinite(pos) & jnp.isfinite(neg)
    diverged = jnp.any(mask & ~finite, axis=0)
    valid = mask
    if divergence == "mask":
        valid = mask & ~diverged
    if divergence == "clip" and clip_loss_diff is not None:
        worse_side = jnp.isfinite(neg).astype(delta.dtype) - jnp.isfinite(pos).astype(delta.dtype)
        delta = jnp.where(finite, delta, worse_side * clip_loss_diff)
    if clip_loss_diff is not None:
        delta = jnp.clip(delta, -clip_loss_diff, clip_loss_diff)
    mean = jnp.where(finite, (pos + neg) / 2, 0.0) if divergence == "clip" else (pos + neg) / 2
    return LossDifference(jnp.where(valid, delta, 0.0), jnp.where(valid, mean, 0.0), valid, diverged)


def with_sign(difference: LossDifference, scale: float | None) -> LossDifference:
    """Each task's differences become the sign of their sum times `scale`: comparable, no longer unbiased."""
    if scale is None:
        return difference
    sign = jnp.sign(jnp.sum(difference.delta, axis=0))
    return difference._replace(delta=jnp.where(difference.valid, sign * scale, 0.0))


def es_gradient(perturbation: Theta, delta: jax.Array, std: float, weight: jax.Array) -> Theta:
    """`sum_i perturbation_i delta_i / (2 std^2 weight)`; leaves of `perturbation` `[N, ...]`."""
    scale = masked_mean(delta / (2 * std**2), weight)
    return jax.tree.map(lambda leaf: jnp.tensordot(scale, leaf, axes=1), perturbation)


def masked_mean(total: jax.Array, weight: jax.Array) -> jax.Array:
    """`total / weight`, and zero where nothing counts."""
    return jnp.where(weight > 0, total / jnp.maximum(weight, 1), jnp.zeros_like(total))


def noise_and_unroll_keys(key: PRNGKey) -> tuple[PRNGKey, PRNGKey]:
    """The keys of a truncation's perturbations and of its unroll. Consumes `key`."""
    key, noise_key = jax.random.split(key)
    _, unroll_key = jax.random.split(key)
    return noise_key, unroll_key


def one_side(out: TruncatedUnrollOut, side: int) -> TruncatedUnrollOut:
    """One member of what `antithetic_unroll` returned: leaves `[T, N, ...]`."""
    return cast(TruncatedUnrollOut, jax.tree.map(lambda leaf: leaf[side], out))


def unroll_info(out: TruncatedUnrollOut) -> UnrollInfo:
    """What an estimator reports of an unroll."""
    return UnrollInfo(out.loss, out.iteration, out.task_param, out.is_done)


def es_out(
    grad: Theta, difference: LossDifference, next_state: PyTree, pos: TruncatedUnrollOut
) -> GradientEstimatorOut:
    """An ES estimate, from the loss differences behind it and the positive unroll."""
    return GradientEstimatorOut(
        mean_loss=difference.mean_loss,
        grad=grad,
        unroll_state=next_state,
        unroll_info=unroll_info(pos),
        weight=difference.weight,
        diverged_tasks=jnp.sum(difference.diverged, dtype=jnp.int32),
        inner_steps=2 * jnp.sum(pos.mask, dtype=jnp.int32),
    )


def unroll_metrics(
    grad: Theta, out: TruncatedUnrollOut, diverged_tasks: jax.Array, with_summary: bool
) -> Metrics:
    """What is worth watching of any estimate; with `with_summary` also the size of the gradient's leaves."""
    metrics = {
        "inner_step": jnp.mean(out.iteration[-1].astype(jnp.float32)),
        "finished_tasks": jnp.sum(out.is_done, dtype=jnp.int32),
        "diverged_tasks": diverged_tasks,
    }
    if with_summary:
        for path, leaf in jax.tree_util.tree_leaves_with_path(grad):
            metrics[f"grad_abs_mean{jax.tree_util.keystr(path)}"] = jnp.mean(jnp.abs(leaf))
    return metrics


def es_metrics(
    grad: Theta, difference: LossDifference, pos: TruncatedUnrollOut, with_summary: bool
) -> Metrics:
    """`unroll_metrics` and the mean size of the loss differences."""
    metrics = unroll_metrics(grad, pos, jnp.sum(difference.diverged, dtype=jnp.int32), with_summary)
    return {**metrics, "delta_loss": masked_mean(jnp.sum(jnp.abs(difference.delta)), difference.weight)}


def check_es_options(estimator: Any) -> None:
    """Refuses impossible values of the options that all ES estimators share.

    Raises:
        ValueError: names the class, the argument, the value and the rule.
    """
    name = type(estimator).__name__
    if not estimator.std > 0:
        raise ValueError(f"{name}(std={estimator.std}): std must be positive")
    if estimator.divergence not in get_args(Divergence):
        raise ValueError(
            f"{name}(divergence={estimator.divergence!r}): choose one of {', '.join(get_args(Divergence))}"
        )
    if estimator.clip_loss_diff is not None and not estimator.clip_loss_diff > 0:
        raise ValueError(f"{name}(clip_loss_diff={estimator.clip_loss_diff}): it must be positive, or None")
    if estimator.divergence == "clip" and estimator.clip_loss_diff is None:
        raise ValueError(f"{name}(divergence='clip'): set clip_loss_diff, the bound to clip to")


def check_length(estimator: Any, length_name: str) -> None:
    """Refuses a truncation that is not a positive multiple of `steps_per_jit`.

    Raises:
        ValueError: names the class, the arguments, their values and the rule.
    """
    name, length, steps = type(estimator).__name__, getattr(estimator, length_name), estimator.steps_per_jit
    for argument, value in ((length_name, length), ("steps_per_jit", steps)):
        if value < 1:
            raise ValueError(f"{name}({argument}={value}): {argument} must be at least 1")
    if length % steps:
        raise ValueError(
            f"{name}({length_name}={length}, steps_per_jit={steps}): {length_name} must be a multiple of "
            "steps_per_jit"
        )
