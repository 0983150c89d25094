"""Evolution strategies on one truncation at a time: low variance, biased by the truncation.

Metz et al., "Understanding and correcting pathologies in the training of learned optimizers", ICML 2019, https://arxiv.org/abs/1810.10180.
"""

import dataclasses

from unspool.outer_trainers.estimate_report import es_metrics, es_out
from unspool.outer_trainers.gradient_estimator import (
    GradientEstimatorOut,
    Metrics,
    WorkerWeights,
    check_length,
)
from unspool.outer_trainers.long_sums import sum_over_steps
from unspool.outer_trainers.loss_difference import credit
from unspool.outer_trainers.truncated_evolution_strategy import TruncatedEvolutionStrategy
from unspool.outer_trainers.truncated_step import UnrollState
from unspool.outer_trainers.unroll import Pair
from unspool.types import Batch, PRNGKey


@dataclasses.dataclass(frozen=True)
class TruncatedES(TruncatedEvolutionStrategy):
    """Both members of an antithetic pair start each truncation from the same state; the positive one is
    carried on.

    A loss is credited to the noise of its own truncation: what earlier noise did to it is not seen, which is
    the bias.

    Attributes:
        unroll_length: inner steps per estimate.
        steps_per_jit: must divide `unroll_length`; every estimate is one compiled program whatever it is.
    """

    unroll_length: int = 20
    _: dataclasses.KW_ONLY
    steps_per_jit: int = 10

    def __post_init__(self) -> None:
        super().__post_init__()
        check_length(self, "unroll_length")

    @property
    def num_steps(self) -> int:
        return self.unroll_length

    def init_worker_state(self, worker_weights: WorkerWeights, key: PRNGKey) -> UnrollState:
        return self.system.init_step_state(worker_weights.theta, worker_weights.outer_state, key)

    def estimate(
        self, worker_weights: WorkerWeights, key: PRNGKey, state: UnrollState, data: Batch, with_summary: bool
    ) -> tuple[GradientEstimatorOut, Metrics]:
        noise, states, pos, difference = self.under_one_noise(worker_weights, key, Pair(state, state), data)
        credited = credit(noise, sum_over_steps(difference.delta))
        grad = self.gradient_of_truncation(credited, difference, worker_weights.outer_state)
        return es_out(grad, difference, states.pos, pos), es_metrics(grad, difference, pos, with_summary)
