"""Generalized persistent evolution strategies, which reuse noise for any number of steps."""

import dataclasses

from unspool.config.arguments import check_whole_number
from unspool.evolution.antithetic_pairs import Std
from unspool.evolution.evolution_strategy import EvolutionStrategy
from unspool.evolution.noise_reuse import AntitheticStep, NoiseReuse, ReusesNoise


@dataclasses.dataclass(frozen=True)
class GPES(ReusesNoise, EvolutionStrategy):
    """Persistent ES that draws new noise after every `noise_length` steps of an episode: GPES_K of Li et al.
    2023 (https://arxiv.org/abs/2304.12180).

    A larger `noise_length` reduces the variance if the gradients of an episode's parts do not cancel, and
    increases the error from updates of theta while the noise is in use. If `noise_length` is the episode's
    length, GPES equals `TruncatedESSharedNoise`; if it is `trunc_length`, and the episode's length is a
    multiple of that, GPES equals `TruncatedPES`.

    Attributes:
        trunc_length: inner steps per estimate.
        noise_length: inner steps of an episode per noise draw, including a reset in a step of its own.
        std: standard deviation of the noise, or a mapping from paths of theta's leaves to numbers.
    """

    trunc_length: int = 10
    noise_length: int = 100
    std: Std = 0.01

    def __post_init__(self) -> None:
        super().__post_init__()
        check_whole_number(self, "trunc_length", "noise_length")

    @property
    def num_steps(self) -> int:
        return self.trunc_length

    @property
    def noise_reuse(self) -> NoiseReuse:
        return NoiseReuse(self, self.noise_length, AntitheticStep(self.pairs))
