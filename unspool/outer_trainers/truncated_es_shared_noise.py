"""Noise-reuse evolution strategies with one noise vector per episode."""

import dataclasses

from unspool.config.arguments import check_whole_number
from unspool.evolution.antithetic_pairs import Std
from unspool.evolution.evolution_strategy import EvolutionStrategy
from unspool.evolution.noise_reuse import AntitheticStep, NoiseReuse, ReusesNoise


@dataclasses.dataclass(frozen=True)
class TruncatedESSharedNoise(ReusesNoise, EvolutionStrategy):
    """NRES of Li et al. 2023 (https://arxiv.org/abs/2304.12180), the same as ES-Single of Vicol et al. 2023
    (https://arxiv.org/abs/2304.11153).

    The estimate is unbiased for the same smoothed loss as `FullES`, with one estimate per truncation. Its
    variance is at most that of `TruncatedPES` if losses are linear in theta, and it needs no accumulator: the
    noise is stored as one key per task.

    Attributes:
        unroll_length: number of inner steps per estimate.
        std: standard deviation of the noise, or a mapping from paths of theta's leaves to numbers.
    """

    unroll_length: int = 20
    std: Std = 0.01

    def __post_init__(self) -> None:
        super().__post_init__()
        check_whole_number(self, "unroll_length")

    @property
    def num_steps(self) -> int:
        return self.unroll_length

    @property
    def noise_reuse(self) -> NoiseReuse:
        return NoiseReuse(self, None, AntitheticStep(self.pairs))


NRES = TruncatedESSharedNoise
ESSingle = TruncatedESSharedNoise
