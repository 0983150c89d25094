"""Influence balancing: a linear system in which the short-term effect of theta has the wrong sign.

Tallec and Ollivier, "Unbiased Online Recurrent Optimization", ICLR 2018, https://arxiv.org/abs/1702.05043;
with the constants of Vicol, Metz and Sohl-Dickstein, ICML 2021, https://arxiv.org/abs/2112.13835. Truncated
gradients move theta away from the optimum unless the truncation is longer than the chain of units; unbiased
estimators converge with truncations of a single step.
"""

import dataclasses
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from unspool.config.arguments import check_finite, check_whole_number, refusal
from unspool.outer_trainers.truncated_step import EpisodesInExpectation, TruncatedStep, TruncatedUnrollOut
from unspool.systems import episode_clock
from unspool.systems.episode_clock import EpisodeClock
from unspool.types import Batch, OuterState, PRNGKey, Scalar, Theta


class InfluenceBalancingState(NamedTuple):
    """The values of the units `[num_units]`, and the position in the episode."""

    units: Float[Array, " units"]
    clock: EpisodeClock


@dataclasses.dataclass(frozen=True)
class InfluenceBalancing(TruncatedStep):
    """`s <- A s + theta * sign`, with the loss `(s[0] - 1)^2 / 2`.

    `A` has 1/2 on its diagonal and superdiagonal: each unit passes half of its value to the previous unit.
    `sign` is 1 for the first `num_positive` units and -1 for the others. In the long run
    `s[0] = 2 theta (2 num_positive - num_units)`, which is -6 theta by default, but the units closest to the
    measured one have the opposite short-term effect. The loss is quadratic in theta, so antithetic estimates
    have no smoothing bias.

    Theta is `{"drive": []}`, or `{"drive": [num_units]}` with `per_unit_theta`.

    Attributes:
        num_units: length of the chain.
        num_positive: number of units with a positive sign.
        initial_unit: the value of every unit at the start of an episode.
        initial_drive: the initial theta.
        per_unit_theta: whether each unit has its own drive.
        loss_every: the interval between steps with a loss; the others are masked. If it is the truncation
            length, each estimate uses the last loss only, as in the papers.
        episode_length: steps between resets; None if the system is never reset.
        stagger: if not 0, the first episode is shortened to a random multiple of this.
    """

    num_units: int = 23
    num_positive: int = 10
    initial_unit: float = 1.0
    initial_drive: float = 0.5
    per_unit_theta: bool = False
    loss_every: int = 1
    episode_length: int | None = None
    stagger: int = 0

    def __post_init__(self) -> None:
        check_whole_number(self, "num_units", "loss_every")
        check_whole_number(self, "num_positive", at_least=0)
        check_finite(self, "initial_unit", "initial_drive")
        episode_clock.check(self)
        if self.num_positive > self.num_units:
            raise refusal(self, "num_positive", f"there are no more than num_units={self.num_units} units")
        # An episode must end with a loss, because a masked last step would be taken for a reset.
        for name in ("episode_length", "stagger"):
            if (getattr(self, name) or 0) % self.loss_every:
                raise refusal(self, name, f"{name} must be a multiple of loss_every={self.loss_every}")

    def outer_init(self, key: PRNGKey) -> Theta:
        del key
        shape = (self.num_units,) if self.per_unit_theta else ()
        return {"drive": jnp.full(shape, self.initial_drive, jnp.float32)}

    def episodes(self, outer_state: OuterState) -> EpisodesInExpectation:
        del outer_state
        return episode_clock.expected(self, 1 / self.loss_every)

    def init_step_state(self, theta: Theta, outer_state: OuterState, key: PRNGKey) -> InfluenceBalancingState:
        del theta, outer_state
        return InfluenceBalancingState(self._initial_units(), episode_clock.first(self, key))

    def unroll_step(
        self,
        theta: Theta,
        unroll_state: InfluenceBalancingState,
        key: PRNGKey,
        data: Batch,
        outer_state: OuterState,
    ) -> tuple[InfluenceBalancingState, TruncatedUnrollOut]:
        del key, data, outer_state
        clock = unroll_state.clock
        units = self.moved(theta, unroll_state.units)
        following, is_done = episode_clock.after_step(self, clock)
        next_units = jnp.where(is_done, self._initial_units(), units)
        has_loss = (clock.step + 1) % self.loss_every == 0
        out = episode_clock.step_out(self.loss(units), is_done, clock, has_loss)
        return InfluenceBalancingState(next_units, following), out

    def moved(self, theta: Theta, units: Float[Array, " units"]) -> Float[Array, " units"]:
        """Return the units `[num_units]` after one step."""
        sign = jnp.where(jnp.arange(self.num_units) < self.num_positive, 1.0, -1.0)
        from_next = jnp.append(units[1:], 0.0)
        return 0.5 * (units + from_next) + jnp.asarray(theta["drive"]) * sign

    def loss(self, units: Float[Array, " units"]) -> Scalar:
        """Return the loss of the units `[num_units]`."""
        return 0.5 * (units[0] - 1.0) ** 2

    def _initial_units(self) -> Float[Array, " units"]:
        return jnp.full((self.num_units,), self.initial_unit, jnp.float32)
