"""A linear learning-rate ramp: two outer parameters and an outer loss with many local minima.

The toy problem of Vicol, Metz and Sohl-Dickstein, ICML 2021, https://arxiv.org/abs/2112.13835. Exact
gradients get stuck in a local minimum of the outer loss; smoothed by perturbations of theta, the loss has a
single minimum.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from unspool.outer_trainers.truncated_step import EpisodesInExpectation, TruncatedStep, TruncatedUnrollOut
from unspool.systems import episode_clock
from unspool.systems.episode_clock import EpisodeClock
from unspool.types import Batch, OuterState, PRNGKey, Scalar, Theta

_INITIAL_POINT = (1.0, 1.0)


class LearningRateRampState(NamedTuple):
    """The inner parameters `[2]`, and the position in the episode."""

    point: Float[Array, "2"]
    clock: EpisodeClock


@dataclasses.dataclass(frozen=True)
class LearningRateRamp(TruncatedStep):
    """Gradient descent on `sqrt(x^2 + 5) - sqrt(5) + sin(y)^2 exp(-5 x^2) + |y - 100| / 4` from (1, 1).

    The learning rate changes linearly from `exp(log_start)` at the first step towards `exp(log_end)` at the
    end of the episode. Theta is `{"log_start": [], "log_end": []}`, initially (-4, -4).

    Attributes:
        episode_length: steps between resets.
        stagger: if not 0, the first episode is shortened to a random multiple of this.
    """

    episode_length: int = 100
    stagger: int = 0

    def __post_init__(self) -> None:
        episode_clock.check(self)

    def outer_init(self, key: PRNGKey) -> Theta:
        del key
        return {"log_start": jnp.float32(-4), "log_end": jnp.float32(-4)}

    def episodes(self, outer_state: OuterState) -> EpisodesInExpectation:
        del outer_state
        return episode_clock.expected(self)

    def init_step_state(self, theta: Theta, outer_state: OuterState, key: PRNGKey) -> LearningRateRampState:
        del theta, outer_state
        return LearningRateRampState(jnp.asarray(_INITIAL_POINT, jnp.float32), episode_clock.first(self, key))

    def unroll_step(
        self,
        theta: Theta,
        unroll_state: LearningRateRampState,
        key: PRNGKey,
        data: Batch,
        outer_state: OuterState,
    ) -> tuple[LearningRateRampState, TruncatedUnrollOut]:
        del key, data, outer_state
        point, clock = unroll_state
        progress = clock.step / self.episode_length
        learning_rate = (1 - progress) * jnp.exp(theta["log_start"]) + progress * jnp.exp(theta["log_end"])
        moved = point - learning_rate * jax.grad(height)(point)
        following, is_done = episode_clock.after_step(self, clock)
        next_point = jnp.where(is_done, jnp.asarray(_INITIAL_POINT, jnp.float32), moved)
        return LearningRateRampState(next_point, following), episode_clock.step_out(
            height(moved), is_done, clock
        )


def height(point: Float[Array, "2"]) -> Scalar:
    """Return the inner loss at `point` `[2]`."""
    x, y = point
    bowl = jnp.sqrt(x**2 + 5) - jnp.sqrt(5.0)
    return bowl + jnp.sin(y) ** 2 * jnp.exp(-5 * x**2) + 0.25 * jnp.abs(y - 100)
