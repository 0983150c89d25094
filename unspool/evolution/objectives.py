"""Objectives of an episode as sums over its steps, which truncations can estimate piece by piece.

The default objective of the estimators is the mean of the losses. The steps in this file report other losses,
whose sum over an episode is the objective. An estimate is still a mean over steps, so the gradient of an
objective that is evaluated once per episode is divided by the episode's length.
"""

import dataclasses
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

from unspool.lazy_cond import lazy_cond
from unspool.steps.step_outputs import TruncatedUnrollOut
from unspool.steps.unroll import where_tasks
from unspool.steps.vectorized_step import StepContext, VectorizedStep
from unspool.steps.wrapped_step import WrappedStep
from unspool.types import Batch, PRNGKey, StepKey, Theta, UnrollState

Objective = Literal["loss", "telescoped", "last_recompute"]
"""loss: the mean of an episode's losses. telescoped: the last loss, as a sum of changes from step to step.
last_recompute: the loss of the last state on fresh outer batches.
"""


def step_with_objective(step: VectorizedStep, objective: Objective, recompute_samples: int) -> VectorizedStep:
    """Return `step` with losses that add up to `objective` over an episode."""
    if objective == "telescoped":
        return Telescoped(step)
    if objective == "last_recompute":
        return LastRecomputed(step, recompute_samples)
    return step


def check_objective(step: VectorizedStep, objective: Objective, estimator: str) -> None:
    """Reject an objective that needs states which the step does not keep."""
    if objective == "last_recompute" and not step.keeps_last_state:
        raise ValueError(
            f"{estimator}(objective='last_recompute'): {step.label()} does not declare that an episode's "
            "last state is available after its last step. If it resets in a separate step, by convention (a) "
            "or (b) of TruncatedStep, set keeps_last_state = True; else use objective='telescoped'"
        )


class TelescopedState(NamedTuple):
    """The state of the system, and the loss of the previous step, `[num_tasks]` float32: zero at the start
    of an episode.
    """

    state: UnrollState
    last_loss: jax.Array


@dataclasses.dataclass(frozen=True)
class Telescoped(WrappedStep):
    """A step that reports changes of the loss, which sum to the last loss of an episode.

    Vicol et al. 2021 (https://arxiv.org/abs/2112.13835), section 5 and appendix.
    """

    @property
    def num_tasks(self) -> int:  # type: ignore[override]  # the base class declares a plain attribute
        return self.step.num_tasks

    def keys_of_steps(self, keys: PRNGKey) -> StepKey:
        return self.step.keys_of_steps(keys)

    def init_tasks(self, theta: Theta, key: PRNGKey, context: StepContext) -> TelescopedState:
        state = self.step.init_tasks(theta, key, context)
        return TelescopedState(state, jnp.zeros(self.num_tasks, jnp.float32))

    def step_tasks(
        self, theta: Theta, state: TelescopedState, key: StepKey, data: Batch, context: StepContext
    ) -> tuple[TelescopedState, TruncatedUnrollOut]:
        following, out = self.step.step_tasks(theta, state.state, key, data, context)
        loss = jnp.where(out.mask, out.loss, state.last_loss).astype(jnp.float32)
        telescoped = out._replace(loss=loss - state.last_loss)
        return TelescopedState(following, jnp.where(out.is_done, 0.0, loss)), telescoped

    def meta_losses(
        self, theta: Theta, state: TelescopedState, key: PRNGKey, data: Batch, context: StepContext
    ) -> jax.Array:
        return self.step.meta_losses(theta, state.state, key, data, context)


class RecomputeKeys(NamedTuple):
    """The keys of one step: the system's, and the one for the losses at the end of an episode."""

    step: StepKey
    recompute: PRNGKey


@dataclasses.dataclass(frozen=True)
class LastRecomputed(WrappedStep):
    """A step that reports, at the end of an episode only, the loss of the last state on fresh outer batches.

    The system must reset in a step of its own. In convention (a) of `TruncatedStep`, where the step with the
    last loss reports `is_done`, the last state is the one that this step returns. In convention (b), where
    the reset reports `is_done`, the last state is the input of the reset, and the reset reports the loss.
    Batches are drawn from resident data; with streamed data all samples use the same batch.

    Attributes:
        samples: number of batches to average the loss over.
    """

    samples: int

    @property
    def num_tasks(self) -> int:  # type: ignore[override]  # the base class declares a plain attribute
        return self.step.num_tasks

    def keys_of_steps(self, keys: PRNGKey) -> RecomputeKeys:
        pairs = jax.vmap(jax.random.split)(keys)
        return RecomputeKeys(self.step.keys_of_steps(pairs[:, 0]), pairs[:, 1])

    def init_tasks(self, theta: Theta, key: PRNGKey, context: StepContext) -> UnrollState:
        return self.step.init_tasks(theta, key, context)

    def step_tasks(
        self, theta: Theta, state: UnrollState, key: StepKey, data: Batch, context: StepContext
    ) -> tuple[UnrollState, TruncatedUnrollOut]:
        keys = key if isinstance(key, RecomputeKeys) else RecomputeKeys(*jax.random.split(key))
        following, out = self.step.step_tasks(theta, state, keys.step, data, context)
        only_resets = out.is_done & ~out.mask
        outer_batch = self.step.outer_batch_of(data)
        last_state = where_tasks(only_resets, state, following)

        def losses() -> jax.Array:
            each = jax.lax.map(
                lambda one: self.step.meta_losses(theta, last_state, one, outer_batch, context),
                jax.random.split(keys.recompute, self.samples),
            )
            return jnp.mean(each, axis=0)

        nothing = jnp.zeros(self.num_tasks, out.loss.dtype)
        at_end = lazy_cond(jnp.any(out.is_done), losses, nothing)
        loss = jnp.where(out.is_done, at_end, jnp.zeros_like(at_end))
        return following, out._replace(loss=loss, mask=out.mask | only_resets)

    def meta_losses(
        self, theta: Theta, state: UnrollState, key: PRNGKey, data: Batch, context: StepContext
    ) -> jax.Array:
        return self.step.meta_losses(theta, state, key, data, context)
