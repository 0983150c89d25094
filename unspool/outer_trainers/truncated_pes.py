"""Persistent evolution strategies.

Vicol, Metz and Sohl-Dickstein, "Unbiased Gradient Estimation in Unrolled Computation Graphs with Persistent
Evolution Strategies", ICML 2021, https://arxiv.org/abs/2112.13835. Each truncation draws new noise; a loss is
multiplied by the sum of all noise drawn in its episode so far, which removes the bias of truncation.
"""

import dataclasses
from typing import Any, NamedTuple, Self

import jax
import jax.numpy as jnp

from unspool.config.arguments import check_whole_number
from unspool.estimates.estimate_report import es_estimate
from unspool.estimates.long_sums import sum_over_steps
from unspool.evolution.antithetic_pairs import Std
from unspool.evolution.evolution_strategy import EvolutionStrategy
from unspool.evolution.loss_difference import steps_after_an_end, weighted_noise_sum
from unspool.outer_trainers.gradient_estimator import GradientEstimatorOut, Metrics, WorkerWeights
from unspool.outer_trainers.truncated_step import TruncatedUnrollOut, UnrollState
from unspool.steps.unroll import Pair, where_tasks
from unspool.types import Batch, PRNGKey, Theta


class PESWorkerState(NamedTuple):
    """The state between truncations; leaves lead with `[num_tasks * pairs_per_task]`.

    Attributes:
        pos_state: unrolls under `theta + noise`.
        neg_state: unrolls under `theta - noise`.
        accumulator: like theta, the sum of the noise drawn in each task's episode.
    """

    pos_state: UnrollState
    neg_state: UnrollState
    accumulator: Theta

    def replace(self, **changes: Any) -> Self:
        """Return a copy with some fields changed."""
        return self._replace(**changes)


@dataclasses.dataclass(frozen=True)
class TruncatedPES(EvolutionStrategy):
    """Persistent ES: noise is drawn per truncation; a loss is multiplied by all noise of its episode.

    Let `noise` be the noise of this truncation and `accumulator` the sum of all noise of the episode. A loss
    is multiplied by `accumulator`; if an episode ended earlier in the truncation, by `noise`, the only noise
    of its own episode (eq. (10) of the paper).

    Attributes:
        trunc_length: number of inner steps per estimate.
        std: standard deviation of the noise, or a mapping from paths of theta's leaves to numbers.
        steps_per_jit: no effect, since every estimate is one compiled program; accepted for code written for
            the tutorials.
    """

    trunc_length: int = 10
    std: Std = 0.01
    steps_per_jit: int = dataclasses.field(default=10, compare=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_whole_number(self, "trunc_length", "steps_per_jit")

    @property
    def num_steps(self) -> int:
        return self.trunc_length

    def init_worker_state(self, worker_weights: WorkerWeights, key: PRNGKey) -> PESWorkerState:
        state = self.pairs.unrolled_step.init_step_state(
            worker_weights.theta, worker_weights.outer_state, key
        )
        return PESWorkerState(state, state, self.pairs.no_noise(worker_weights.theta))

    def estimate(
        self,
        worker_weights: WorkerWeights,
        key: PRNGKey,
        state: PESWorkerState,
        data: Batch,
        with_summary: bool,
    ) -> tuple[GradientEstimatorOut, Metrics]:
        states = Pair(state.pos_state, state.neg_state)
        noise, states, pos, difference = self.under_one_noise(worker_weights, key, states, data)
        accumulator = jax.tree.map(jnp.add, state.accumulator, noise)
        weighted_noise = _weighted_noise(accumulator, noise, difference.delta, pos.is_done)
        grad = self.gradient_of_truncation(weighted_noise, difference, worker_weights.outer_state)
        next_state = PESWorkerState(*states, _noise_carried_on(accumulator, noise, pos))
        return es_estimate(grad, difference, next_state, pos, with_summary)


def _weighted_noise(accumulator: Theta, noise: Theta, delta: jax.Array, is_done: jax.Array) -> Theta:
    """Return the sum of all `xi_t delta_t`."""
    in_new_episode = steps_after_an_end(is_done) > 0
    of_old = sum_over_steps(jnp.where(in_new_episode, 0, delta))
    of_new = sum_over_steps(jnp.where(in_new_episode, delta, 0))
    return jax.tree.map(jnp.add, weighted_noise_sum(accumulator, of_old), weighted_noise_sum(noise, of_new))


def _noise_carried_on(accumulator: Theta, noise: Theta, out: TruncatedUnrollOut) -> Theta:
    """Return the accumulated noise for the next truncation.

    It is `accumulator` if no episode ended in this truncation, and `noise` if a new episode started in it. It
    is zero if the last step ended an episode and the reset is still pending: no noise has been drawn in the
    new episode yet. A step that only resets may have a loss too (objective "last_recompute"); no reset is
    pending after it.
    """
    reset_pending = out.is_done[-1] & out.mask[-1] & (out.iteration[-1] > 0)
    new_episode = jnp.any(out.is_done, axis=0)

    kept = where_tasks(new_episode, noise, accumulator)
    return where_tasks(reset_pending, jax.tree.map(jnp.zeros_like, kept), kept)
