"""The base class of estimators that unroll whole episodes and end them themselves."""

import abc
import zlib
from typing import NamedTuple, Self

import jax
import jax.numpy as jnp

from unspool.config.arguments import check_instance, refusal
from unspool.estimates.long_sums import RunningSum
from unspool.outer_trainers.gradient_estimator import GradientEstimator, WorkerWeights
from unspool.outer_trainers.truncated_step import TruncatedUnrollOut
from unspool.outer_trainers.truncation_schedule import (
    ConstantTruncationSchedule,
    NeverEndingTruncationSchedule,
    TruncationSchedule,
)
from unspool.types import PRNGKey

# The random stream of episode lengths, separate from the split keys that golden values depend on.
_LENGTH_STREAM = zlib.crc32(b"episode length")


class NoState(NamedTuple):
    """The empty state: nothing persists between whole episodes."""


class WholeEpisodeEstimator(GradientEstimator):
    """An estimator with one estimate per episode, and a schedule for the episode's length.

    Attributes:
        truncation_schedule: the length, drawn at each call and shared by all tasks. The step's own
            `trunc_sched`, if it has one, must be `NeverEndingTruncationSchedule`.
    """

    truncation_schedule: TruncationSchedule

    def init_worker_state(self, worker_weights: WorkerWeights, key: PRNGKey) -> NoState:
        del worker_weights, key
        return NoState()

    @abc.abstractmethod
    def steps_of_data(self) -> int:
        """Return the number of steps of an episode, which must be constant for streamed data."""

    def drawn_length(self, worker_weights: WorkerWeights, init_key: PRNGKey) -> jax.Array:
        """Return the length of the episode, `[]` int32, from a random stream of its own of `init_key`."""
        key = jax.random.fold_in(init_key, _LENGTH_STREAM)
        length: jax.Array = self.truncation_schedule.init(key, worker_weights.outer_state).length
        return length

    def check_whole_episodes(self) -> None:
        """Check the schedules: the estimator must end episodes, and the step must not."""
        name = type(self).__name__
        check_instance(
            self, "truncation_schedule", TruncationSchedule, "e.g. ConstantTruncationSchedule(100)"
        )
        if isinstance(self.truncation_schedule, NeverEndingTruncationSchedule):
            raise refusal(self, "truncation_schedule", "an episode needs a length")
        of_step = getattr(self.truncated_step, "trunc_sched", None)
        if of_step is not None and not isinstance(of_step, NeverEndingTruncationSchedule):
            raise ValueError(
                f"{name}(truncated_step with trunc_sched={of_step}): {name} ends episodes itself; give the "
                f"step a NeverEndingTruncationSchedule and {name} the schedule"
            )

    def constant_length(self) -> int:
        """Return the length of every episode, for streamed data, which is fetched before a length is drawn.

        Raises:
            ValueError: the length is not constant.
        """
        if not isinstance(self.truncation_schedule, ConstantTruncationSchedule):
            rule = (
                "a system that streams its data needs a ConstantTruncationSchedule, because the data is "
                "fetched before the length is drawn"
            )
            raise refusal(self, "truncation_schedule", rule)
        return self.truncation_schedule.total_length


class EpisodeSums(NamedTuple):
    """Running statistics of an unroll, independent of its length; leaves like the losses of a step.

    Attributes:
        total: the sum of the losses.
        last: the last loss.
        losses: the number of losses.
        steps: `[N]` int32, the number of inner steps.
    """

    total: RunningSum
    last: jax.Array
    losses: jax.Array
    steps: jax.Array

    @classmethod
    def zero_like(cls, losses: jax.Array) -> Self:
        """Return the statistics before the first step, for losses `[..., N]` per step."""
        zeros = jnp.zeros_like(losses)
        return cls(RunningSum.zero_like(zeros), zeros, zeros, jnp.zeros(zeros.shape[-1:], jnp.int32))

    def plus(self, out: TruncatedUnrollOut, steps: jax.Array) -> Self:
        """Return the statistics after one more step with outputs `out` and inner steps `steps` `[N]`."""
        return type(self)(
            total=self.total.plus(jnp.where(out.mask, out.loss, 0)),
            last=jnp.where(out.mask, out.loss, self.last),
            losses=self.losses + out.mask.astype(out.loss.dtype),
            steps=self.steps + steps,
        )
