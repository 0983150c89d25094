"""Evolution strategies on whole episodes: unbiased for the smoothed loss, with one estimate per episode.

Salimans et al., "Evolution Strategies as a Scalable Alternative to Reinforcement Learning", 2017,
https://arxiv.org/abs/1703.03864; with the objectives of Metz et al., "VeLO", 2022,
https://arxiv.org/abs/2211.09760.
"""

import dataclasses
from typing import Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp

from unspool.config.arguments import check_choice, check_whole_number
from unspool.estimates.estimate_report import es_estimate, is_inner_step
from unspool.estimates.long_sums import RunningSum
from unspool.estimates.whole_episodes import EpisodeSums, NoState, WholeEpisodeEstimator
from unspool.evolution.antithetic_pairs import AntitheticPairs, PairOptions, Std
from unspool.evolution.loss_difference import Sides, masked_mean, weighted_noise_sum
from unspool.outer_trainers.gradient_estimator import GradientEstimatorOut, Metrics, WorkerWeights
from unspool.outer_trainers.truncated_step import TruncatedUnrollOut
from unspool.outer_trainers.truncation_schedule import TruncationSchedule
from unspool.steps.unroll import (
    Inputs,
    Pair,
    antithetic_step,
    antithetic_thetas,
    one_side,
    stack_pair,
    zeros_like_result,
)
from unspool.types import Batch, PRNGKey, PyTree, Theta

LossType = Literal["avg", "min", "last", "last_recompute"]

# Keys are derived for this many steps at a time, whatever `steps_per_jit` is; golden values depend on it.
_STEPS_PER_KEY = 10


class _Loop(NamedTuple):
    """An unroll in progress; `sums` and `lowest` (the lowest loss) have leaves `[2, N]`."""

    step: jax.Array
    key: PRNGKey
    states: Pair
    sums: EpisodeSums
    lowest: jax.Array
    out: TruncatedUnrollOut


@dataclasses.dataclass(frozen=True)
class FullES(PairOptions, WholeEpisodeEstimator):
    """Evolution strategies that unroll every pair for a whole episode.

    With the objective f, the estimate is the mean over pairs of
    `noise (f(theta + noise) - f(theta - noise)) / (2 std^2)`, and the weight of an estimate is its number of
    pairs: all episodes have the same weight, whatever their length. Memory does not grow with the length of
    episodes.

    The options of the pairs are described by `PairOptions`, the schedule by `WholeEpisodeEstimator`.

    Attributes:
        std: standard deviation of the noise, or a mapping from paths of theta's leaves to numbers.
        steps_per_jit: the length is rounded down to a multiple of this, and up to at least this.
        loss_type: the objective over an episode: the mean, lowest or last loss, or the mean loss of the final
            state on `recompute_samples` fresh outer batches.
        recompute_samples: number of batches for "last_recompute".
    """

    truncation_schedule: TruncationSchedule
    std: Std = 0.01
    steps_per_jit: int = 10
    loss_type: LossType = "avg"
    recompute_samples: int = 50

    def __post_init__(self) -> None:
        super().__post_init__()
        check_whole_number(self, "steps_per_jit", "recompute_samples")
        check_choice(self, "loss_type", get_args(LossType))
        self.check_whole_episodes()

    @property
    def pairs(self) -> AntitheticPairs:
        return self.pairs_of(self.truncated_step)

    def estimate(
        self, worker_weights: WorkerWeights, key: PRNGKey, state: NoState, data: Batch, with_summary: bool
    ) -> tuple[GradientEstimatorOut, Metrics]:
        key, noise_key = jax.random.split(key)
        key, init_key = jax.random.split(key)
        noise = self.pairs.sample_noise(worker_weights.theta, noise_key)
        thetas = antithetic_thetas(worker_weights.theta, noise)
        length = self._rounded(self.drawn_length(worker_weights, init_key))
        inputs = Inputs(data, worker_weights.outer_state, length)
        loop = self._unroll(thetas, init_key, key, length, inputs)
        pos = jax.tree.map(lambda leaf: leaf[None], one_side(loop.out, 0))
        has_objective = (loop.sums.losses[:1] > 0) | (self.loss_type == "last_recompute")
        ends_once = jnp.zeros_like(has_objective)
        difference = self.pairs.difference(self._sides(thetas, loop, inputs), has_objective, ends_once)
        grad = self.pairs.gradient(weighted_noise_sum(noise, difference.delta[0]), difference)
        inner_steps = 2 * jnp.sum(loop.sums.steps, dtype=jnp.int32)
        return es_estimate(grad, difference, state, pos, with_summary, inner_steps)

    def steps_of_data(self) -> int:
        return max(self.constant_length() // self.steps_per_jit, 1) * self.steps_per_jit

    def _rounded(self, length: jax.Array | int) -> jax.Array:
        return jnp.maximum(length // self.steps_per_jit, 1) * self.steps_per_jit

    def _unroll(
        self, thetas: Pair, init_key: PRNGKey, key: PRNGKey, length: jax.Array, inputs: Inputs
    ) -> _Loop:
        """Unroll whole episodes of both members, as a loop over a traced number of steps."""

        def start(theta: Theta) -> PyTree:
            return self.pairs.unrolled_step.init_tasks(theta, init_key, inputs.context())

        def some_steps(loop: _Loop) -> _Loop:
            key, unroll_key = jax.random.split(loop.key)
            key, _ = jax.random.split(key)
            keys = self.pairs.unrolled_step.keys_of_steps(jax.random.split(unroll_key, _STEPS_PER_KEY))
            end = jnp.minimum(loop.step + _STEPS_PER_KEY, length)
            return jax.lax.while_loop(
                lambda loop: loop.step < end,
                lambda loop: self._one_step(thetas, loop, keys, inputs),
                loop._replace(key=key),
            )

        states = Pair(start(thetas.pos), start(thetas.neg))
        no_out = self._no_out(thetas, states, key, inputs)
        sums, lowest = EpisodeSums.zero_like(no_out.loss), no_out.loss + jnp.inf
        loop = _Loop(jnp.zeros((), jnp.int32), key, states, sums, lowest, no_out)
        return jax.lax.while_loop(lambda loop: loop.step < length, some_steps, loop)

    def _one_step(self, thetas: Pair, loop: _Loop, keys: PyTree, inputs: Inputs) -> _Loop:
        step_key = jax.tree.map(lambda leaf: leaf[loop.step % _STEPS_PER_KEY], keys)
        states, out = self._step(thetas, loop.states, step_key, loop.step, inputs)
        sums = loop.sums.plus(out, is_inner_step(one_side(out, 0)))
        lowest = jnp.minimum(loop.lowest, jnp.where(out.mask, out.loss, jnp.inf))
        return _Loop(loop.step + 1, loop.key, states, sums, lowest, out)

    def _step(
        self, thetas: Pair, states: Pair, key: PyTree, step: jax.Array, inputs: Inputs
    ) -> tuple[Pair, TruncatedUnrollOut]:
        batch = jax.tree.map(lambda leaf: leaf[step], inputs.streamed())
        stacked = self.stack_antithetic_samples
        return antithetic_step(
            self.pairs.unrolled_step, thetas, states, key, inputs.of_step(batch), inputs, stacked=stacked
        )

    def _no_out(self, thetas: Pair, states: Pair, key: PRNGKey, inputs: Inputs) -> TruncatedUnrollOut:
        """Return zeros in the shape of a step's output, as the initial value of the loop."""

        def report(key: PRNGKey) -> TruncatedUnrollOut:
            one_key = jax.tree.map(
                lambda leaf: leaf[0], self.pairs.unrolled_step.keys_of_steps(jax.random.split(key, 1))
            )
            return self._step(thetas, states, one_key, jnp.zeros((), jnp.int32), inputs)[1]

        return zeros_like_result(report, key)

    def _sides(self, thetas: Pair, loop: _Loop, inputs: Inputs) -> Sides:
        """Return the objective of both members; leaves `[1, N]`."""
        if self.loss_type == "avg":
            return _sides_of_means(loop.sums.total, loop.sums.losses)
        if self.loss_type == "last_recompute":
            objective = self._recomputed(thetas, loop, inputs)
        else:
            objective = loop.lowest if self.loss_type == "min" else loop.sums.last
        return Sides.of_pair(objective[:1], objective[1:])

    def _recomputed(self, thetas: Pair, loop: _Loop, inputs: Inputs) -> jax.Array:
        """Return the losses of the final states `[2, N]`, averaged over shared fresh outer batches."""
        data = inputs.of_step(jax.tree.map(lambda leaf: leaf[-1], inputs.streamed()))
        data = self.truncated_step.outer_batch_of(data)

        def one_batch(key: PRNGKey) -> jax.Array:
            def one_member(theta: Theta, state: PyTree) -> jax.Array:
                return self.pairs.unrolled_step.meta_losses(theta, state, key, data, inputs.context())

            return jax.vmap(one_member)(stack_pair(thetas), stack_pair(loop.states))

        losses = jax.lax.map(one_batch, jax.random.split(loop.key, self.recompute_samples))
        return jnp.mean(losses, axis=0)


def _sides_of_means(total: RunningSum, losses: jax.Array) -> Sides:
    """Return the sides of mean losses, from their sums `[2, N]` over an episode.

    Over long episodes the difference of the sums may be smaller than the rounding error of each, so the
    compensation terms are included.
    """
    pos, neg = masked_mean(total.value, losses)
    rounded, lost = (part[0] - part[1] for part in total)
    return Sides.of_pair(pos[None], neg[None], masked_mean(rounded + lost, losses[0])[None])
