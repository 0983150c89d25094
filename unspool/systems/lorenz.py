"""Parameter fitting of the Lorenz system: a chaotic outer loss that is simple when smoothed.

Li, Harrison, Sohl-Dickstein, Smith and Metz, "Variance-Reduced Gradient Estimation via Noise-Reuse in Online
Evolution Strategies", NeurIPS 2023, https://arxiv.org/abs/2304.12180. Backpropagation through the unroll,
truncated or not, does not find the parameters that generated the trajectory.
"""

import dataclasses
import functools
import math
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from jaxtyping import Array, Float

from unspool.outer_trainers.truncated_step import EpisodesInExpectation, TruncatedStep, TruncatedUnrollOut
from unspool.systems import episode_clock
from unspool.systems.episode_clock import EpisodeClock
from unspool.types import Batch, OuterState, PRNGKey, Theta

_B = 8 / 3
_TIME_STEP = 0.005
_INITIAL_POSITION = (1.2, 1.3, 1.6)
_TRUE_A, _TRUE_R = 10.0, 28.0
_FIRST_LOG_A, _FIRST_LOG_R = 3.116, 3.7


class LorenzState(NamedTuple):
    """The coordinates x, y and z `[3]`, and the position in the episode."""

    position: Float[Array, "3"]
    clock: EpisodeClock


@dataclasses.dataclass(frozen=True)
class LorenzFit(TruncatedStep):
    """Euler steps of `x' = a (y - x)`, `y' = x (r - z) - y`, `z' = x y - 8/3 z`. The loss of a step is the
    squared difference between z and that of the true system at the same time.

    Theta is `{"log_a": [], "log_r": []}`, initially (3.116, 3.7). The true values are `a = 10`, `r = 28`,
    which is (2.303, 3.332).

    Attributes:
        episode_length: steps of 0.005 between resets.
        stagger: if not 0, the first episode is shortened to a random multiple of this.
    """

    episode_length: int = 2000
    stagger: int = 0

    def __post_init__(self) -> None:
        episode_clock.check(self)

    def outer_init(self, key: PRNGKey) -> Theta:
        del key
        return {"log_a": jnp.float32(_FIRST_LOG_A), "log_r": jnp.float32(_FIRST_LOG_R)}

    def true_theta(self) -> Theta:
        """Return the theta that generated the trajectory."""
        return {"log_a": jnp.float32(math.log(_TRUE_A)), "log_r": jnp.float32(math.log(_TRUE_R))}

    def episodes(self, outer_state: OuterState) -> EpisodesInExpectation:
        del outer_state
        return episode_clock.expected(self)

    def init_step_state(self, theta: Theta, outer_state: OuterState, key: PRNGKey) -> LorenzState:
        del theta, outer_state
        return LorenzState(jnp.asarray(_INITIAL_POSITION, jnp.float32), episode_clock.first(self, key))

    def unroll_step(
        self, theta: Theta, unroll_state: LorenzState, key: PRNGKey, data: Batch, outer_state: OuterState
    ) -> tuple[LorenzState, TruncatedUnrollOut]:
        del key, data, outer_state
        position, clock = unroll_state
        x, y, z = position
        a, r = jnp.exp(theta["log_a"]), jnp.exp(theta["log_r"])
        velocity = jnp.stack([a * (y - x), x * (r - z) - y, x * y - _B * z])
        moved = position + _TIME_STEP * velocity
        loss = (moved[2] - jnp.asarray(_true_z(self.episode_length))[clock.step]) ** 2
        following, is_done = episode_clock.after_step(self, clock)
        next_position = jnp.where(is_done, jnp.asarray(_INITIAL_POSITION, jnp.float32), moved)
        return LorenzState(next_position, following), episode_clock.step_out(loss, is_done, clock)


@functools.cache
def _true_z(num_steps: int) -> npt.NDArray[np.float32]:
    """Return z of the true system after each step, `[num_steps]`, in float32 like the unrolls."""
    position = np.array(_INITIAL_POSITION, np.float32)
    z_of_step = np.empty(num_steps, np.float32)
    for step in range(num_steps):
        x, y, z = position
        velocity = [_TRUE_A * (y - x), x * (_TRUE_R - z) - y, x * y - _B * z]
        position = position + np.float32(_TIME_STEP) * np.array(velocity, np.float32)
        z_of_step[step] = position[2]
    return z_of_step
