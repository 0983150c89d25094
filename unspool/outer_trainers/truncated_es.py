"""Evolution strategies on one truncation at a time: low variance, biased by the truncation.

Metz et al., "Understanding and correcting pathologies in the training of learned optimizers", ICML 2019, https://arxiv.org/abs/1810.10180.
"""

import dataclasses

from unspool.config.arguments import check_whole_number
from unspool.estimates.estimate_report import es_estimate
from unspool.estimates.long_sums import sum_over_steps
from unspool.evolution.antithetic_pairs import Std
from unspool.evolution.evolution_strategy import EvolutionStrategy
from unspool.evolution.loss_difference import weighted_noise_sum
from unspool.outer_trainers.gradient_estimator import GradientEstimatorOut, Metrics, WorkerWeights
from unspool.outer_trainers.truncated_step import UnrollState
from unspool.steps.unroll import Pair
from unspool.types import Batch, PRNGKey


@dataclasses.dataclass(frozen=True)
class TruncatedES(EvolutionStrategy):
    """ES in which both members of a pair start each truncation from the final state of the positive member.

    A loss is multiplied by the noise of its own truncation only. The effect of earlier noise is ignored,
    which causes the bias.

    Attributes:
        unroll_length: number of inner steps per estimate.
        steps_per_jit: no effect, since every estimate is one compiled program; accepted for code written for
            the tutorials.
        std: standard deviation of the noise, or a mapping from paths of theta's leaves to numbers.
    """

    unroll_length: int = 20
    steps_per_jit: int = dataclasses.field(default=10, compare=False)
    std: Std = 0.01

    def __post_init__(self) -> None:
        super().__post_init__()
        check_whole_number(self, "unroll_length", "steps_per_jit")

    @property
    def num_steps(self) -> int:
        return self.unroll_length

    def init_worker_state(self, worker_weights: WorkerWeights, key: PRNGKey) -> UnrollState:
        return self.pairs.unrolled_step.init_step_state(worker_weights.theta, worker_weights.outer_state, key)

    def estimate(
        self, worker_weights: WorkerWeights, key: PRNGKey, state: UnrollState, data: Batch, with_summary: bool
    ) -> tuple[GradientEstimatorOut, Metrics]:
        noise, states, pos, difference = self.under_one_noise(worker_weights, key, Pair(state, state), data)
        weighted_noise = weighted_noise_sum(noise, sum_over_steps(difference.delta))
        grad = self.gradient_of_truncation(weighted_noise, difference, worker_weights.outer_state)
        return es_estimate(grad, difference, states.pos, pos, with_summary)
