"""Noise-reuse evolution strategies in the limit of small noise: directional derivatives in forward mode.

Silver et al., "Learning by Directional Gradient Descent" (DODGE), ICLR 2022.
"""

import dataclasses

import jax
import jax.numpy as jnp

from unspool.config.arguments import check_whole_number, refusal
from unspool.estimates.backpropagation import FloatingLeaves
from unspool.evolution.antithetic_pairs import Std
from unspool.evolution.evolution_strategy import EvolutionStrategy
from unspool.evolution.loss_difference import Sides
from unspool.evolution.noise_reuse import NoiseReuse, PairStep, ReusesNoise
from unspool.outer_trainers.truncated_step import TruncatedUnrollOut, UnrollState, VectorizedStep
from unspool.steps.unroll import Inputs, Pair
from unspool.types import Batch, PyTree, Theta


@dataclasses.dataclass(frozen=True)
class DODGE(ReusesNoise, EvolutionStrategy):
    """The derivative of an unroll along random directions, which are reused as `GPES` reuses its noise.

    On differentiable systems the estimate is unbiased for the gradient of the unsmoothed loss; on chaotic
    unrolls that gradient is of no use. DODGE also serves as an oracle for tests: if losses are quadratic in
    theta, it equals `GPES` with the same keys. With as many orthogonal directions as theta has dimensions d
    (`pairs_per_task=d, orthogonal=True, perturbation="sphere"`) it is exact real-time recurrent learning.

    In its state, `neg_state` holds the derivatives of `pos_state`. `std` scales the directions and cancels
    out of the estimate; `stack_antithetic_samples` has no effect.

    Attributes:
        trunc_length: inner steps per estimate.
        noise_length: inner steps of an episode per direction; None for one direction per episode.
        std: standard deviation of the directions, or a mapping from paths of theta's leaves to numbers;
            cancels out.
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
            raise refusal(self, "divergence", "derivatives have no worse side; choose 'mask' or 'fail'")

    @property
    def num_steps(self) -> int:
        return self.trunc_length

    @property
    def noise_reuse(self) -> NoiseReuse:
        return NoiseReuse(self, self.noise_length, ForwardModeStep(self.pairs.unrolled_step))


@dataclasses.dataclass(frozen=True)
class ForwardModeStep(PairStep):
    """One step and its derivative along the noise, in place of a pair's negative member."""

    unrolled_step: VectorizedStep

    def first_states(self, state: UnrollState) -> Pair:
        return Pair(state, [jnp.zeros_like(leaf) for leaf in FloatingLeaves(state).floating])

    def step(
        self, theta: Theta, noise: Theta, states: Pair, key: PyTree, batch: Batch, inputs: Inputs
    ) -> tuple[Pair, TruncatedUnrollOut, Sides]:
        parts = FloatingLeaves(states.pos)
        thetas = jax.tree.map(lambda leaf, like: jnp.broadcast_to(leaf, like.shape), theta, noise)

        def step(
            thetas: Theta, floating: list[jax.Array]
        ) -> tuple[tuple[list[jax.Array], jax.Array], tuple[UnrollState, TruncatedUnrollOut]]:
            state = parts.joined(floating)
            state, out = self.unrolled_step.step_tasks(thetas, state, key, batch, inputs.context())
            return (FloatingLeaves(state).floating, out.loss), (state, out)

        (_, loss), (derivatives, slope), (state, out) = jax.jvp(
            step, (thetas, parts.floating), (noise, states.neg), has_aux=True
        )
        return Pair(state, derivatives), out, Sides.of_derivative(loss, slope)
