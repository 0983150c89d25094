"""Noise-reuse evolution strategies: one noise for the whole of an episode."""

import dataclasses

from unspool.config.arguments import check_whole_number
from unspool.outer_trainers.evolution_strategy import Std
from unspool.outer_trainers.noise_reuse import NoiseReuse


@dataclasses.dataclass(frozen=True)
class TruncatedESSharedNoise(NoiseReuse):
    """NRES of Li et al. 2023 (https://arxiv.org/abs/2304.12180), which is ES-Single of Vicol et al. 2023
    (https://arxiv.org/abs/2304.11153).

    Unbiased for the same smoothed loss as `FullES`, of which it answers a truncation at a time. Its variance
    is at most that of `TruncatedPES` wherever losses are linear in theta, and it needs no accumulator: its
    noise is one key per task.

    Attributes:
        unroll_length: inner steps per estimate.
        std: standard deviation of the noise, or a mapping from paths of theta's leaves to theirs.
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
    def steps_per_noise(self) -> None:
        return None


NRES = TruncatedESSharedNoise
ESSingle = TruncatedESSharedNoise
