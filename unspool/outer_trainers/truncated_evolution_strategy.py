"""What evolution strategies on truncations share: which losses they sum, and how much each counts."""

import abc
import dataclasses
import math
from typing import Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp

from unspool.config.arguments import check_choice, check_decay, check_whole_number
from unspool.outer_trainers.evolution_strategy import EvolutionStrategy
from unspool.outer_trainers.gradient_estimator import OuterState, WorkerWeights
from unspool.outer_trainers.loss_difference import LossDifference, Sides
from unspool.outer_trainers.objectives import Objective, check_objective, step_with_objective
from unspool.outer_trainers.truncated_step import TruncatedUnrollOut, VectorizedStep
from unspool.outer_trainers.unroll import Inputs, Pair, antithetic_thetas, antithetic_unroll, one_side
from unspool.types import Batch, PRNGKey, Theta

WeightBy = Literal["step", "episode"]
"""step: every step counts the same, so that long episodes count more than short ones. episode: every episode
counts the same, as it does for estimators that unroll whole episodes."""


_LOG_LARGEST_WEIGHT = math.log(1e6)


class UnderOneNoise(NamedTuple):
    """A truncation of antithetic pairs that each have one noise throughout.

    Attributes:
        noise: leaves `[N, ...]`.
        states: at the end.
        pos: what the positive members report.
        difference: what counts of the losses.
    """

    noise: Theta
    states: Pair
    pos: TruncatedUnrollOut
    difference: LossDifference


@dataclasses.dataclass(frozen=True, kw_only=True)
class TruncatedEvolutionStrategy(EvolutionStrategy):
    """The options of evolution strategies on truncations.

    Attributes:
        objective: what the sum over an episode's steps is.
        recompute_samples: fresh batches for "last_recompute".
        weight_by: what counts the same: steps or episodes. For "episode" a loss counts by the mean episode
            length over the length of its own episode; where the step does not know the mean, by `num_steps`
            over it, and the estimate's scale is that of a window's share in an episode.
        death_probability: probability that an unroll is lost and starts again at each estimate. Steps that
            would be seen too seldom for it count more, by the inverse of their survival `(1 - p)^truncation`,
            up to a factor of 1e6: beyond it, late truncations count too little. With p > 0 and n truncations
            in an episode, estimates are `n p / (1 - (1 - p)^n)` times as large as without deaths.
    """

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
        """Inner steps per estimate."""

    @property
    def reporting_step(self) -> VectorizedStep:
        return step_with_objective(self.truncated_step, self.objective, self.recompute_samples)

    def steps_of_data(self) -> int:
        return self.num_steps

    def under_one_noise(
        self, worker_weights: WorkerWeights, key: PRNGKey, states: Pair, data: Batch
    ) -> UnderOneNoise:
        """A truncation from `states` under noise that is drawn at its start. Consumes `key`."""
        key, noise_key = jax.random.split(key)
        _, unroll_key = jax.random.split(key)
        noise = self.sample_noise(worker_weights, noise_key)
        states, out = antithetic_unroll(
            self.system,
            antithetic_thetas(worker_weights.theta, noise),
            states,
            unroll_key,
            self.num_steps,
            Inputs(data, worker_weights.outer_state),
            stacked=self.stack_antithetic_samples,
        )
        pos = one_side(out, 0)
        sides = Sides.of_pair(out.loss[0], out.loss[1])
        weights = self.step_weights(pos, worker_weights.outer_state)
        return UnderOneNoise(noise, states, pos, self.difference(sides, pos.mask, pos.is_done, weights))

    def gradient_of_truncation(
        self, credited: Theta, difference: LossDifference, outer_state: OuterState | None
    ) -> Theta:
        """The estimate, from the sum of all `xi_t delta_t` of a truncation."""
        fraction = self.truncated_step.episodes(outer_state).loss_fraction
        return self.gradient(credited, difference, self.num_steps * fraction)

    def step_weights(self, out: TruncatedUnrollOut, outer_state: OuterState | None) -> jax.Array | None:
        """How much each step counts, `[T, N]`; None if all count the same.

        Raises:
            ValueError: episodes are to count the same, and the step does not report their length.
        """
        if self.weight_by == "step" and self.death_probability == 0:
            return None
        weights = jnp.ones_like(out.loss)
        if self.weight_by == "episode":
            if out.episode_length is None:
                raise ValueError(
                    f"{type(self).__name__}(weight_by='episode'): {self.truncated_step.label()} does not "
                    "report the episode_length of its steps in TruncatedUnrollOut; let it, or weight by step"
                )
            mean_length = self.truncated_step.episodes(outer_state).mean_length
            typical = jnp.asarray(self.num_steps if mean_length is None else mean_length, weights.dtype)
            weights = typical / jnp.maximum(out.episode_length, 1).astype(weights.dtype)
        truncations = jnp.maximum(out.iteration - 1, 0) // self.num_steps
        log_inverse_survival = -math.log1p(-self.death_probability) * truncations.astype(weights.dtype)
        return weights * jnp.exp(jnp.minimum(log_inverse_survival, _LOG_LARGEST_WEIGHT))
