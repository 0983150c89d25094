"""Backpropagation through whole episodes: the exact gradient.

Two nested levels of checkpoints need memory for about `2 sqrt(T)` states in an episode of T steps.
"""

import dataclasses
import functools
import math
from typing import Literal, get_args

import jax
import jax.numpy as jnp

from unspool.config.arguments import check_choice, check_whole_number
from unspool.discarded import not_differentiated
from unspool.estimates.backpropagation import (
    DivergenceOfGradients,
    UnrollLosses,
    mean_gradient,
    resets_harmless,
)
from unspool.estimates.estimate_report import differentiated_estimate, is_inner_step
from unspool.estimates.whole_episodes import EpisodeSums, NoState, WholeEpisodeEstimator
from unspool.evolution.loss_difference import masked_mean
from unspool.outer_trainers.gradient_estimator import (
    GradientEstimatorOut,
    Metrics,
    WorkerWeights,
    check_vectorized,
)
from unspool.outer_trainers.truncated_step import TruncatedUnrollOut, UnrollState, VectorizedStep
from unspool.outer_trainers.truncation_schedule import TruncationSchedule
from unspool.steps.unroll import Inputs, zeros_like_result
from unspool.types import Batch, PRNGKey, PyTree, Theta

LossType = Literal["avg", "last"]


@dataclasses.dataclass(frozen=True)
class FullGrad(WholeEpisodeEstimator):
    """The derivative of the mean over tasks of an episode's objective, from its first step to its last.

    The weight of an estimate is its number of tasks: all episodes have the same weight, whatever their
    length.

    Attributes:
        truncated_step: the system.
        truncation_schedule: as in `WholeEpisodeEstimator`.
        loss_type: the objective: the mean or the last loss of an episode.
        max_length: upper bound on the length of episodes; only needed if the schedule has none. Time grows
            with the length drawn, memory with the square root of this bound.
        divergence: the treatment of a task whose loss or gradient is not finite.
    """

    truncated_step: VectorizedStep
    truncation_schedule: TruncationSchedule
    loss_type: LossType = "avg"
    max_length: int | None = None
    divergence: DivergenceOfGradients = "mask"

    def __post_init__(self) -> None:
        check_vectorized(self)
        check_choice(self, "loss_type", get_args(LossType))
        check_choice(self, "divergence", get_args(DivergenceOfGradients))
        self.check_whole_episodes()
        if self.max_length is not None:
            check_whole_number(self, "max_length")
        elif self.truncation_schedule.longest_episode() is None:
            raise ValueError(
                f"FullGrad(max_length=None): {self.truncation_schedule} has no maximum length; set max_length"
            )

    def estimate(
        self, worker_weights: WorkerWeights, key: PRNGKey, state: NoState, data: Batch, with_summary: bool
    ) -> tuple[GradientEstimatorOut, Metrics]:
        init_key, unroll_key, _ = jax.random.split(key, 3)  # golden values depend on this split
        length = jnp.clip(self.drawn_length(worker_weights, init_key), 1, self._max_length)
        inputs = Inputs(data, worker_weights.outer_state, length)

        def losses(thetas: Theta) -> UnrollLosses:
            start = self.truncated_step.init_tasks(thetas, init_key, inputs.context())
            sums, out = self._unroll(thetas, start, unroll_key, length, inputs)
            loss = masked_mean(sums.total.value, sums.losses) if self.loss_type == "avg" else sums.last
            return UnrollLosses(loss, sums.losses > 0, (sums, out))

        num_tasks = self.truncated_step.num_tasks
        mean = mean_gradient(worker_weights.theta, num_tasks, losses, self.divergence)
        sums, out = mean.aux
        return differentiated_estimate(mean, state, out, sums.steps, with_summary)

    def steps_of_data(self) -> int:
        return self.constant_length()

    @property
    def _max_length(self) -> int:
        longest = self.truncation_schedule.longest_episode()
        return min(bound for bound in (longest, self.max_length) if bound is not None)

    def _unroll(
        self, thetas: Theta, start: UnrollState, key: PRNGKey, length: jax.Array, inputs: Inputs
    ) -> tuple[EpisodeSums, TruncatedUnrollOut]:
        """Return the sums over an episode `[N]`, and the output of the last step, leaves `[1, N, ...]`.

        Reverse mode needs loops of static length, so the loop runs to the maximum length of an episode, in
        blocks; blocks after the end of the episode are skipped.
        """
        in_block = math.isqrt(self._max_length - 1) + 1
        num_blocks = -(-self._max_length // in_block)
        keys = self.truncated_step.keys_of_steps(jax.random.split(key, self._max_length))

        def step(carry: PyTree, number: jax.Array) -> tuple[PyTree, None]:
            goes_on = number < length
            moved = self._one_step(*not_differentiated(~goes_on, (thetas, carry)), number, keys, inputs)
            return _where(goes_on, moved, carry), None

        @jax.checkpoint
        def block(carry: PyTree, first: jax.Array) -> tuple[PyTree, None]:
            def steps() -> PyTree:
                return jax.lax.scan(jax.checkpoint(step), carry, first + jnp.arange(in_block))[0]

            return jax.lax.cond(first < length, steps, lambda: carry), None

        no_out = self._no_out(thetas, start, keys, inputs)
        beginning = (start, EpisodeSums.zero_like(no_out.loss), no_out)
        (_, sums, out), _ = jax.lax.scan(block, beginning, in_block * jnp.arange(num_blocks))
        return sums, jax.tree.map(lambda leaf: leaf[None], out)

    def _one_step(
        self, thetas: Theta, carry: PyTree, number: jax.Array, keys: PyTree, inputs: Inputs
    ) -> PyTree:
        state, sums, _ = carry
        step = resets_harmless(functools.partial(self._step, number=number, keys=keys, inputs=inputs))
        state, out = step(thetas, state)
        return state, sums.plus(out, is_inner_step(out)), out

    def _step(
        self, thetas: Theta, state: UnrollState, number: jax.Array, keys: PyTree, inputs: Inputs
    ) -> tuple[UnrollState, TruncatedUnrollOut]:
        key, batch = jax.tree.map(lambda leaf: leaf[number], (keys, inputs.streamed()))
        return self.truncated_step.step_tasks(thetas, state, key, inputs.of_step(batch), inputs.context())

    def _no_out(self, thetas: Theta, state: UnrollState, keys: PyTree, inputs: Inputs) -> TruncatedUnrollOut:
        """Return zeros in the shape of a step's output, as the initial value of the loop."""
        return zeros_like_result(lambda: self._step(thetas, state, jnp.int32(0), keys, inputs)[1])


def _where(condition: jax.Array, one: PyTree, other: PyTree) -> PyTree:
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), one, other)
