"""Objectives of an episode that are sums over its steps, so that truncations can estimate them in pieces.

The estimators' own objective is the mean of the losses. The steps of this file report other numbers as their
losses, whose sum over an episode is the objective wanted. As everywhere, an estimate is a mean over steps:
the gradient of an objective that stands once in an episode comes divided by the episode's length.
"""

import dataclasses
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

from unspool.outer_trainers.truncated_step import OuterState, TruncatedUnrollOut, UnrollState, VectorizedStep
from unspool.outer_trainers.unroll import where_tasks
from unspool.outer_trainers.wrapped_step import WrappedStep
from unspool.rarely import rarely
from unspool.types import Batch, PRNGKey, PyTree, Theta

Objective = Literal["loss", "telescoped", "last_recompute"]
"""loss: the mean of an episode's losses. telescoped: its last loss, as the sum of the steps' changes.
last_recompute: the loss of its last state on fresh outer batches."""


def step_with_objective(step: VectorizedStep, objective: Objective, recompute_samples: int) -> VectorizedStep:
    """`step`, reporting what `objective` is a sum of."""
    if objective == "telescoped":
        return Telescoped(step)
    if objective == "last_recompute":
        return LastRecomputed(step, recompute_samples)
    return step


def check_objective(step: VectorizedStep, objective: Objective, estimator: str) -> None:
    """Refuses an objective that needs states which the step does not keep.

    Raises:
        ValueError: names the estimator, the objective and the system, and says what would do.
    """
    if objective == "last_recompute" and not step.keeps_last_state:
        raise ValueError(
            f"{estimator}(objective='last_recompute'): {step.label()} does not say that an episode's last "
            "state is there after its last step. If it resets in a step of its own, after convention (a) or "
            "(b) of TruncatedStep, set keeps_last_state = True in its class; else take objective='telescoped'"
        )


class TelescopedState(NamedTuple):
    """Leaves lead with `[num_tasks]`.

    Attributes:
        state: of the system.
        last_loss: float32, of the previous step; zero before an episode's first.
    """

    state: UnrollState
    last_loss: jax.Array


@dataclasses.dataclass(frozen=True)
class Telescoped(WrappedStep):
    """Reports how much the loss changed since the previous step: over an episode, that sums to its last loss.

    Vicol et al. 2021 (https://arxiv.org/abs/2112.13835), section 5 and appendix.
    """

    def init_step_state(
        self,
        theta: Theta,
        outer_state: OuterState,
        key: PRNGKey,
        theta_is_vector: bool = False,
        num_steps_override: jax.Array | int | None = None,
    ) -> TelescopedState:
        state = self.step.init_step_state(theta, outer_state, key, theta_is_vector, num_steps_override)
        return TelescopedState(state, jnp.zeros(self.num_tasks, jnp.float32))

    def unroll_step(
        self,
        theta: Theta,
        unroll_state: TelescopedState,
        key: PRNGKey,
        data: Batch,
        outer_state: OuterState,
        theta_is_vector: bool = False,
        override_num_steps: jax.Array | int | None = None,
    ) -> tuple[TelescopedState, TruncatedUnrollOut]:
        state, out = self.step.unroll_step(
            theta, unroll_state.state, key, data, outer_state, theta_is_vector, override_num_steps
        )
        loss = jnp.where(out.mask, out.loss, unroll_state.last_loss).astype(jnp.float32)
        telescoped = out._replace(loss=loss - unroll_state.last_loss)
        return TelescopedState(state, jnp.where(out.is_done, 0.0, loss)), telescoped

    def meta_loss_batch(
        self,
        theta: Theta,
        unroll_state: TelescopedState,
        key: PRNGKey,
        data: Batch,
        outer_state: OuterState,
        theta_is_vector: bool = False,
    ) -> jax.Array:
        return self.step.meta_loss_batch(theta, unroll_state.state, key, data, outer_state, theta_is_vector)


class RecomputeKeys(NamedTuple):
    """The keys of one step: the system's own, and that of the losses at an episode's end."""

    step: PyTree
    recompute: PRNGKey


@dataclasses.dataclass(frozen=True)
class LastRecomputed(WrappedStep):
    """Reports, at an episode's end only, the loss of its last state on fresh outer batches.

    The system must reset in a step of its own. If it reports `is_done` with its last loss, after convention
    (a) of `TruncatedStep`, the last state is what that step returns. If it reports it with the reset, after
    (b), it is what the reset is given, and it is the reset that has the loss. Data is drawn from what is
    resident; a system that streams it has one batch for all samples.

    Attributes:
        samples: batches that the loss is a mean over.
    """

    samples: int

    def keys_of_steps(self, keys: PRNGKey) -> RecomputeKeys:
        pairs = jax.vmap(jax.random.split)(keys)
        return RecomputeKeys(self.step.keys_of_steps(pairs[:, 0]), pairs[:, 1])

    def init_step_state(
        self,
        theta: Theta,
        outer_state: OuterState,
        key: PRNGKey,
        theta_is_vector: bool = False,
        num_steps_override: jax.Array | int | None = None,
    ) -> UnrollState:
        return self.step.init_step_state(theta, outer_state, key, theta_is_vector, num_steps_override)

    def unroll_step(
        self,
        theta: Theta,
        unroll_state: UnrollState,
        key: PRNGKey | RecomputeKeys,
        data: Batch,
        outer_state: OuterState,
        theta_is_vector: bool = False,
        override_num_steps: jax.Array | int | None = None,
    ) -> tuple[UnrollState, TruncatedUnrollOut]:
        keys = key if isinstance(key, RecomputeKeys) else RecomputeKeys(*jax.random.split(key))
        state, out = self.step.unroll_step(
            theta, unroll_state, keys.step, data, outer_state, theta_is_vector, override_num_steps
        )
        only_resets = out.is_done & ~out.mask
        outer_batch = self.step.outer_batch_of(data)
        last_state = where_tasks(only_resets, unroll_state, state)

        def losses() -> jax.Array:
            each = jax.lax.map(
                lambda one: self.step.meta_loss_batch(
                    theta, last_state, one, outer_batch, outer_state, theta_is_vector
                ),
                jax.random.split(keys.recompute, self.samples),
            )
            return jnp.mean(each, axis=0)

        nothing = jnp.zeros(self.num_tasks, out.loss.dtype)
        at_end = rarely(jnp.any(out.is_done), losses, nothing)
        loss = jnp.where(out.is_done, at_end, jnp.zeros_like(at_end))
        return state, out._replace(loss=loss, mask=out.mask | only_resets)
