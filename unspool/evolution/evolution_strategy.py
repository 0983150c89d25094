"""Evolution strategies on truncations: options, objective and weights of the losses."""

import abc
import dataclasses
import math
from typing import Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp

from unspool.config.arguments import check_choice, check_decay, check_whole_number
from unspool.evolution.antithetic_pairs import AntitheticPairs, PairOptions
from unspool.evolution.loss_difference import LossDifference, Sides
from unspool.evolution.objectives import Objective, check_objective, step_with_objective
from unspool.outer_trainers.gradient_estimator import GradientEstimator, OuterState, WorkerWeights
from unspool.outer_trainers.truncated_step import TruncatedUnrollOut
from unspool.steps.unroll import Inputs, Pair, antithetic_thetas, antithetic_unroll, one_side
from unspool.types import Batch, PRNGKey, Theta

WeightBy = Literal["step", "episode"]
"""step: all steps have the same weight, so long episodes count more than short ones. episode: all episodes
have the same weight, as with estimators that unroll whole episodes.
"""

_LOG_LARGEST_WEIGHT = math.log(1e6)


class UnderOneNoise(NamedTuple):
    """A truncation in which each pair has one noise, leaves `[N, ...]`: the states after its last step,
    the outputs of the positive members, and the loss differences.
    """

    noise: Theta
    states: Pair
    pos: TruncatedUnrollOut
    difference: LossDifference


@dataclasses.dataclass(frozen=True)
class EvolutionStrategy(PairOptions, GradientEstimator):
    """An evolution strategy on truncations, with the options of `PairOptions` and these.

    Attributes:
        objective: the objective that the losses of an episode add up to.
        recompute_samples: number of fresh batches for "last_recompute".
        weight_by: whether steps or episodes have equal weight. With "episode" the weight of a loss is the
            mean episode length divided by the length of its own episode. If the step does not know the mean,
            `num_steps` replaces it, and the estimate is scaled by `num_steps` over the mean length.
        death_probability: probability p that an unroll is lost and restarted at each estimate. Late steps are
            then seen too rarely, so losses are weighted by the inverse survival probability,
            `(1 - p)^-truncation`, up to a factor of 1e6; beyond it, late truncations are underweighted. With
            p > 0 and n truncations in an episode, estimates are `n p / (1 - (1 - p)^n)` times as large as
            without deaths.
    """

    _: dataclasses.KW_ONLY
    objective: Objective = "loss"
    recompute_samples: int = 50
    weight_by: WeightBy = "step"
    death_probability: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice(self, "objective", get_args(Objective))
        check_choice(self, "weight_by", get_args(WeightBy))
        check_whole_number(self, "recompute_samples")
        check_decay(self, "death_probability")
        check_objective(self.truncated_step, self.objective, type(self).__name__)

    @property
    @abc.abstractmethod
    def num_steps(self) -> int:
        """The number of inner steps per estimate."""

    @property
    def pairs(self) -> AntitheticPairs:
        """The pairs to unroll; the losses of their step add up to the objective."""
        step = step_with_objective(self.truncated_step, self.objective, self.recompute_samples)
        return self.pairs_of(step)

    def steps_of_data(self) -> int:
        return self.num_steps

    def under_one_noise(
        self, worker_weights: WorkerWeights, key: PRNGKey, states: Pair, data: Batch
    ) -> UnderOneNoise:
        """Unroll a truncation from `states` under noise that is drawn at its start. Consumes `key`."""
        key, noise_key = jax.random.split(key)
        _, unroll_key = jax.random.split(key)
        noise = self.pairs.sample_noise(worker_weights.theta, noise_key)
        states, out = antithetic_unroll(
            self.pairs.unrolled_step,
            antithetic_thetas(worker_weights.theta, noise),
            states,
            unroll_key,
            self.num_steps,
            Inputs(data, worker_weights.outer_state),
            stacked=self.stack_antithetic_samples,
        )
        pos = one_side(out, 0)
        sides = Sides.of_pair(out.loss[0], out.loss[1])
        difference = self.difference(sides, pos, worker_weights.outer_state)
        return UnderOneNoise(noise, states, pos, difference)

    def difference(
        self, sides: Sides, pos: TruncatedUnrollOut, outer_state: OuterState | None
    ) -> LossDifference:
        """Return the weighted loss differences of a truncation, from outputs `pos` of the positive
        members.
        """
        return self.pairs.difference(sides, pos.mask, pos.is_done, self.step_weights(pos, outer_state))

    def gradient_of_truncation(
        self, weighted_noise: Theta, difference: LossDifference, outer_state: OuterState | None
    ) -> Theta:
        """Return the estimate, from the sum of all `xi_t delta_t` of a truncation."""
        fraction = self.truncated_step.episodes(outer_state).loss_fraction
        return self.pairs.gradient(weighted_noise, difference, self.num_steps * fraction)

    def step_weights(self, out: TruncatedUnrollOut, outer_state: OuterState | None) -> jax.Array | None:
        """Return the weight of each step, `[T, N]`, or None if all weights are equal.

        Raises:
            ValueError: `weight_by` is "episode", and the step does not report the length of its episodes.
        """
        if self.weight_by == "step" and self.death_probability == 0:
            return None
        weights = jnp.ones_like(out.loss)
        if self.weight_by == "episode":
            if out.episode_length is None:
                raise ValueError(
                    f"{type(self).__name__}(weight_by='episode'): {self.truncated_step.label()} does not "
                    "report episode_length in TruncatedUnrollOut; report it, or use weight_by='step'"
                )
            mean_length = self.truncated_step.episodes(outer_state).mean_length
            typical = jnp.asarray(self.num_steps if mean_length is None else mean_length, weights.dtype)
            weights = typical / jnp.maximum(out.episode_length, 1).astype(weights.dtype)
        # A step of truncation k is seen with probability (1 - p)^k; its weight is the inverse.
        truncations = jnp.maximum(out.iteration - 1, 0) // self.num_steps
        log_inverse_survival = -math.log1p(-self.death_probability) * truncations.astype(weights.dtype)
        return weights * jnp.exp(jnp.minimum(log_inverse_survival, _LOG_LARGEST_WEIGHT))
