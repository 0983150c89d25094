"""Small unrolled systems that are linear in theta, so that antithetic estimates have no smoothing bias."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from unspool.lazy_cond import lazy_cond
from unspool.outer_trainers.gradient_estimator import GradientEstimator, GradientEstimatorOut, WorkerWeights
from unspool.outer_trainers.truncated_step import TruncatedStep, TruncatedUnrollOut
from unspool.types import Batch, PRNGKey, Theta

DECAY = 0.9


class LinearState(NamedTuple):
    """The state of a `LinearSystem`."""

    position: jax.Array
    step: jax.Array
    length: jax.Array
    is_done: jax.Array


@dataclasses.dataclass(frozen=True)
class LinearSystem(TruncatedStep):
    """`x_t = 0.9 x_{t-1} + (1, t) . theta`; the loss is `x_t`.

    Attributes:
        length: steps of an episode; the minimum if `longest` is given.
        longest: maximum of the uniformly drawn lengths of episodes.
        last_step_only: whether all losses except an episode's last are zero.
        done_on_reset: whether `is_done` is reported by the masked reset step instead of the step with the
            last loss.
        starts_at_theta: whether episodes start at the sum of theta instead of zero.
    """

    length: int
    longest: int | None = None
    last_step_only: bool = False
    done_on_reset: bool = False
    starts_at_theta: bool = False

    def outer_init(self, key: PRNGKey) -> Theta:
        return {"theta": jnp.zeros(2)}

    def init_step_state(self, theta: Theta, outer_state: Any, key: PRNGKey) -> LinearState:
        start = jnp.sum(theta["theta"]) if self.starts_at_theta else jnp.zeros(())
        length = jax.random.randint(key, (), self.length, (self.longest or self.length) + 1)
        return LinearState(start, jnp.zeros((), jnp.int32), length, jnp.zeros((), bool))

    def unroll_step(
        self, theta: Theta, unroll_state: LinearState, key: PRNGKey, data: Batch, outer_state: Any
    ) -> tuple[LinearState, TruncatedUnrollOut]:
        resets = unroll_state.is_done
        step = unroll_state.step + 1
        is_last = step >= unroll_state.length
        position = DECAY * unroll_state.position + theta["theta"] @ jnp.stack([1.0, step.astype(jnp.float32)])
        moved = LinearState(position, step, unroll_state.length, is_last)
        state = lazy_cond(resets, lambda: self.init_step_state(theta, outer_state, key), moved)
        counts = (is_last | (not self.last_step_only)) & ~resets
        return state, TruncatedUnrollOut(
            loss=jnp.where(counts, position, 0.0),
            is_done=resets if self.done_on_reset else state.is_done,
            task_param=(),
            iteration=state.step,
            mask=~resets,
            episode_length=unroll_state.length,
        )


@dataclasses.dataclass(frozen=True)
class LossOfStep(TruncatedStep):
    """A loss of theta's only number and of the step number, from 1; episodes do not end by themselves.

    Attributes:
        loss: a function of the step number and of theta's number.
    """

    loss: Callable[[jax.Array, jax.Array], jax.Array]

    def outer_init(self, key: PRNGKey) -> Theta:
        return {"a": jnp.float32(0.0)}

    def init_step_state(self, theta: Theta, outer_state: Any, key: PRNGKey) -> jax.Array:
        return jnp.int32(0)

    def unroll_step(
        self, theta: Theta, unroll_state: jax.Array, key: PRNGKey, data: Batch, outer_state: Any
    ) -> tuple[jax.Array, TruncatedUnrollOut]:
        step = unroll_state + 1
        loss = self.loss(step, jnp.asarray(theta["a"]))
        return step, TruncatedUnrollOut(loss, jnp.bool_(False), (), step, jnp.bool_(True))


def two_estimates(estimator: GradientEstimator, weights: WorkerWeights) -> list[GradientEstimatorOut]:
    """Two estimates in a row; the second one starts where the first one stopped."""
    state, found = estimator.init_worker_state(weights, jax.random.PRNGKey(0)), []
    for key in jax.random.split(jax.random.PRNGKey(1), 2):
        out, _ = estimator.compute_gradient_estimate(weights, key, state)
        state = out.unroll_state
        found.append(out)
    return found
