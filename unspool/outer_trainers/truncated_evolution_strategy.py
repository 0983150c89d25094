"""What evolution strategies on truncations share: which losses they sum, and how much each counts."""

import abc
import dataclasses
from typing import Literal, get_args

import jax
import jax.numpy as jnp

from unspool.arguments import check_choice, check_decay, check_whole_number
from unspool.outer_trainers.evolution_strategy import EvolutionStrategy
from unspool.outer_trainers.objectives import Objective, step_with_objective
from unspool.outer_trainers.repeated_step import RepeatedStep
from unspool.outer_trainers.truncated_step import TruncatedUnrollOut, VectorizedStep

WeightBy = Literal["step", "episode"]
"""step: every step counts the same, so that long episodes count more than short ones. episode: every episode
counts the same, as it does for estimators that unroll whole episodes."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class TruncatedEvolutionStrategy(EvolutionStrategy):
    """The options of evolution strategies on truncations.

    Attributes:
        objective: what the sum over an episode's steps is.
        recompute_samples: fresh batches for "last_recompute".
        weight_by: what counts the same: steps or episodes.
        death_probability: probability that an unroll is lost and begins anew at each estimate. Steps that
            would be seen too seldom for it count more, by the inverse of their survival `(1 - p)^truncation`.
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

    @property
    @abc.abstractmethod
    def num_steps(self) -> int:
        """Inner steps per estimate."""

    @property
    def system(self) -> VectorizedStep:
        step = step_with_objective(self.truncated_step, self.objective, self.recompute_samples)
        return step if self.pairs_per_task == 1 else RepeatedStep(step, self.pairs_per_task)

    def steps_of_data(self) -> int:
        return self.num_steps

    def step_weights(self, out: TruncatedUnrollOut) -> jax.Array | None:
        """How much each step counts, `[T, N]`; None if all count the same.

        Raises:
            ValueError: episodes are to count the same, and the step does not report their length.
        """
        if self.weight_by == "step" and self.death_probability == 0:
            return None
        weights = jnp.ones(out.loss.shape, jnp.float32)
        if self.weight_by == "episode":
            if out.episode_length is None:
                raise ValueError(
                    f"{type(self).__name__}(weight_by='episode'): {self.truncated_step.label()} does not "
                    "report the episode_length of its steps in TruncatedUnrollOut; let it, or weight by step"
                )
            weights = weights / jnp.maximum(out.episode_length, 1)
        truncations = jnp.maximum(out.iteration - 1, 0) // self.num_steps
        return weights * (1 - self.death_probability) ** -truncations.astype(jnp.float32)
