"""Small unrolled systems whose exact gradients are known."""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from unspool.outer_trainers.truncated_step import TruncatedStep, TruncatedUnrollOut
from unspool.rarely import rarely
from unspool.types import Batch, PRNGKey, Theta

DECAY = 0.9


class LinearState(NamedTuple):
    """Where a `LinearSystem` stands."""

    position: jax.Array
    step: jax.Array
    is_done: jax.Array


@dataclasses.dataclass(frozen=True)
class LinearSystem(TruncatedStep):
    """`x_t = 0.9 x_{t-1} + (1, t) . theta`, reset every `length` steps; the loss is `x_t`, or `x_length` at
    the last step only.

    Linear in every copy of theta, so antithetic estimates have no smoothing bias at any std.
    """

    length: int
    last_step_only: bool = False
    done_on_reset: bool = False

    def outer_init(self, key: PRNGKey) -> Theta:
        return {"theta": jnp.zeros(2)}

    def init_step_state(self, theta: Theta, outer_state: Any, key: PRNGKey) -> LinearState:
        return LinearState(jnp.zeros(()), jnp.zeros((), jnp.int32), jnp.zeros((), bool))

    def unroll_step(
        self, theta: Theta, unroll_state: LinearState, key: PRNGKey, data: Batch, outer_state: Any
    ) -> tuple[LinearState, TruncatedUnrollOut]:
        resets = unroll_state.is_done
        step = unroll_state.step + 1
        position = DECAY * unroll_state.position + theta["theta"] @ jnp.stack([1.0, step.astype(jnp.float32)])
        moved = LinearState(position, step, step >= self.length)
        state = rarely(resets, lambda: self.init_step_state(theta, outer_state, key), moved)
        counts = (step == self.length) | (not self.last_step_only)
        loss = jnp.where(counts & ~resets, position, 0.0)
        is_done = resets if self.done_on_reset else state.is_done
        return state, TruncatedUnrollOut(loss, is_done, (), state.step, ~resets)

    def exact_gradients(self, num_steps: int) -> tuple[np.ndarray, np.ndarray]:
        """`(d loss_t / d theta [num_steps, 2], mask [num_steps])` of an unroll from an episode's start."""
        gradients, mask, influence, step = [], [], np.zeros(2), 0
        for _ in range(num_steps):
            if step == self.length:
                gradients.append(np.zeros(2))
                mask.append(False)
                influence, step = np.zeros(2), 0
                continue
            step += 1
            influence = DECAY * influence + np.array([1.0, step])
            gradients.append(influence * (step == self.length or not self.last_step_only))
            mask.append(True)
        return np.array(gradients), np.array(mask)
