"""Noise-reuse evolution strategies in the limit of small noise: directional derivatives in forward mode.

Silver et al., "Learning by Directional Gradient Descent" (DODGE), ICLR 2022.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from unspool.config.arguments import check_whole_number
from unspool.outer_trainers.evolution_strategy import Std
from unspool.outer_trainers.floating_leaves import FloatingLeaves
from unspool.outer_trainers.loss_difference import Sides
from unspool.outer_trainers.noise_reuse import NoiseReuse
from unspool.outer_trainers.truncated_step import TruncatedUnrollOut, UnrollState
from unspool.outer_trainers.unroll import Inputs, Pair
from unspool.types import Batch, PyTree, Theta


@dataclasses.dataclass(frozen=True)
class DODGE(NoiseReuse):
    """The derivative of an unroll along random directions, which are kept as `GPES` keeps its noise.

    Unbiased for the gradient itself, not of a smoothed loss, where the system is differentiable; on chaotic
    unrolls as useless as that gradient. Beside its use on smooth systems it is an oracle: where losses are
    quadratic in theta it gives what `GPES` gives with the same keys. With as many orthogonal directions as
    theta has dimensions (`pairs_per_task=d, orthogonal=True, perturbation="sphere"`) it is exact real-time
    recurrent learning.

    In its state, `neg_state` holds the derivatives of the state that `pos_state` holds. `std` scales
    directions and cancels out of the estimate; `stack_antithetic_samples` does not matter.

    Attributes:
        trunc_length: inner steps per estimate.
        noise_length: inner steps of an episode along one direction; None for the whole episode.
        std: of the directions, or a mapping from paths of theta's leaves to theirs; cancels out.
    """

    trunc_length: int = 10
    noise_length: int | None = None
    std: Std = 0.01

    def __post_init__(self) -> None:
        super().__post_init__()
        check_whole_number(self, "trunc_length")
        if self.noise_length is not None:
            check_whole_number(self, "noise_length")
        if self.divergence == "clip":
            raise ValueError("DODGE(divergence='clip'): it has no worse side; choose 'mask' or 'fail'")

    @property
    def num_steps(self) -> int:
        return self.trunc_length

    @property
    def steps_per_noise(self) -> int | None:
        return self.noise_length

    def _initial_pair(self, state: UnrollState) -> Pair:
        return Pair(state, [jnp.zeros_like(leaf) for leaf in FloatingLeaves(state).floating])

    def _step_of_pair(
        self, theta: Theta, noise: Theta, states: Pair, key: PyTree, batch: Batch, inputs: Inputs
    ) -> tuple[Pair, TruncatedUnrollOut, Sides]:
        parts = FloatingLeaves(states.pos)
        thetas = jax.tree.map(lambda leaf, like: jnp.broadcast_to(leaf, like.shape), theta, noise)

        def step(thetas: Theta, floating: list[jax.Array]) -> tuple[Any, Any]:
            state = parts.joined(floating)
            state, out = self.system.unroll_step(thetas, state, key, batch, inputs.outer_state, True)
            return (FloatingLeaves(state).floating, out.loss), (state, out)

        (_, loss), (derivatives, slope), (state, out) = jax.jvp(
            step, (thetas, parts.floating), (noise, states.neg), has_aux=True
        )
        return Pair(state, derivatives), out, Sides.of_derivative(loss, slope)
