"""A system whose losses are linear in the theta of each step, and the variance of its estimates.

The closed form: let a worker be at a truncation of W steps, with m noises drawn since the episode began, and
let `G_j` be the gradient of the truncation's mean loss with respect to theta under noise j. The estimate of
an antithetic pair is `(sum_j G_j . e_j)(sum_j e_j)` with standard normal e_j, hence
`E |g|^2 = m d sum_j |G_j|^2 + 2 |sum_j G_j|^2` in d dimensions.
"""

import dataclasses
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

from unspool.outer_trainers.truncated_step import (
    OuterState,
    ResidentData,
    TruncatedStep,
    TruncatedUnrollOut,
)
from unspool.types import Batch, PRNGKey, Theta

NUM_STEPS, DIM = 64, 10
_SEED = 0


class LinearState(NamedTuple):
    """The accumulated `position` `[]`, and the `step` of the episode."""

    position: jax.Array
    step: jax.Array


@dataclasses.dataclass(frozen=True)
class LinearSystem(TruncatedStep):
    """`x_t = decay x_{t-1} + g_t . theta`, reset after 64 steps; the loss of a step is `x_t`.

    Steps receive `decay` and all `g_t` as data (`LinearLosses.data`), so all systems share one compiled
    program.
    """

    def outer_init(self, key: PRNGKey) -> Theta:
        del key
        return jnp.zeros(DIM)

    def init_step_state(self, theta: Theta, outer_state: OuterState, key: PRNGKey) -> LinearState:
        del theta, outer_state, key
        return LinearState(jnp.zeros(()), jnp.zeros((), jnp.int32))

    def unroll_step(
        self, theta: Theta, unroll_state: LinearState, key: PRNGKey, data: Batch, outer_state: OuterState
    ) -> tuple[LinearState, TruncatedUnrollOut]:
        del key, outer_state
        decay, gradients = data.arrays
        position = decay * unroll_state.position + gradients[unroll_state.step] @ theta
        step = unroll_state.step + 1
        is_done = step == NUM_STEPS
        out = TruncatedUnrollOut(position, is_done, (), step, jnp.ones((), bool))
        return LinearState(jnp.where(is_done, 0.0, position), jnp.where(is_done, 0, step)), out


@dataclasses.dataclass(frozen=True)
class LinearLosses:
    """The gradients of a `LinearSystem`, and closed forms that follow from them.

    Attributes:
        gradients: the same `g_t` at all steps, independent normal ones, or one that changes sign half-way.
        decay: of the influence of earlier steps.
    """

    gradients: Literal["equal", "random", "sign flip"]
    decay: float = 1.0

    @property
    def data(self) -> ResidentData:
        """The data for the steps of a `LinearSystem`."""
        return ResidentData((jnp.float32(self.decay), jnp.asarray(self.gradients_of_steps(), jnp.float32)))

    def gradients_of_steps(self) -> npt.NDArray[np.float64]:
        """`[steps, d]`."""
        generator = np.random.default_rng(_SEED)
        if self.gradients == "random":
            return generator.standard_normal((NUM_STEPS, DIM))
        equal = np.tile(generator.standard_normal(DIM), (NUM_STEPS, 1))
        if self.gradients == "sign flip":
            equal[NUM_STEPS // 2 :] *= -1
        return equal

    def window_gradients(self, truncation: int) -> npt.NDArray[np.float64]:
        """`[truncations, steps, d]`: of each truncation's mean loss with respect to theta at each step."""
        steps = np.arange(NUM_STEPS)
        age = steps[:, None] - steps
        decayed = np.where(age >= 0, self.decay ** np.maximum(age, 0), 0.0)
        of_losses = decayed[:, :, None] * self.gradients_of_steps()
        means: npt.NDArray[np.float64] = of_losses.reshape(-1, truncation, NUM_STEPS, DIM).mean(axis=1)
        return means

    def gradient(self) -> npt.NDArray[np.float64]:
        """`[d]`: of the episode's mean loss."""
        whole: npt.NDArray[np.float64] = self.window_gradients(NUM_STEPS)[0].sum(axis=0)
        return whole

    def variance(self, truncation: int, noise_length: int) -> float:
        """Total variance of one pair's estimate of a truncation drawn at random, by the closed form."""
        of_steps = self.window_gradients(truncation)
        of_noises = of_steps.reshape(len(of_steps), -1, noise_length, DIM).sum(axis=2)
        num_noises = np.arange(len(of_steps)) * truncation // noise_length + 1
        squares = np.sum(of_noises**2, axis=(1, 2))
        whole = np.sum(of_noises.sum(axis=1) ** 2, axis=1)
        return float(np.mean(num_noises * DIM * squares + 2 * whole) - np.sum(self.gradient() ** 2))
