"""Evolution strategies on whole episodes: simple, unbiased for the smoothed loss, and slow to answer.

Salimans et al., "Evolution Strategies as a Scalable Alternative to Reinforcement Learning", 2017,
https://arxiv.org/abs/1703.03864; with the objectives of Metz et al., "VeLO", 2022, https://arxiv.org/abs/2211.09760.
"""

import dataclasses
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp

from unspool.outer_trainers import common
from unspool.outer_trainers.gradient_estimator import (
    GradientEstimator,
    GradientEstimatorOut,
    Metrics,
    WorkerWeights,
    check_vectorized,
    is_streamed,
)
from unspool.outer_trainers.truncated_step import TruncatedUnrollOut, VectorizedStep
from unspool.outer_trainers.truncation_schedule import (
    ConstantTruncationSchedule,
    NeverEndingTruncationSchedule,
    TruncationSchedule,
)
from unspool.types import Batch, PRNGKey, PyTree, Theta

LossType = Literal["avg", "min", "last", "last_recompute"]
_SCHEDULE_STREAM = 0x5C4ED


class UnrollState(NamedTuple):
    """Nothing: whole episodes leave nothing behind."""


class _Running(NamedTuple):
    """What is kept of an unroll while it goes on; leaves `[2, N]`, whatever its length."""

    total: jax.Array
    lowest: jax.Array
    last: jax.Array


class _Loop(NamedTuple):
    chunk: jax.Array
    key: PRNGKey
    states: common.Pair
    running: _Running
    out: TruncatedUnrollOut


@dataclasses.dataclass(frozen=True)
class FullES(GradientEstimator):
    """One antithetic pair per task, unrolled for a whole episode; nothing persists.

    The estimate is the mean over tasks of
    `noise (objective(theta + noise) - objective(theta - noise)) / (2 std^2)`.

    Attributes:
        truncated_step: the system; if it has a `trunc_sched`, that must be `NeverEndingTruncationSchedule`.
        truncation_schedule: the episode's length, drawn at each call and shared by all tasks.
        std: standard deviation of the noise.
        steps_per_jit: the length is rounded down to a multiple of this (and up to at least this); also the
            steps between two looks at the losses, of which only running statistics are kept.
        loss_type: the objective over an episode: mean of the losses, lowest, last, or the mean over
            `recompute_samples` fresh outer batches at the final state.
        recompute_samples: batches for "last_recompute".
        clip_loss_diff: bound on the difference of the objectives.
        stack_antithetic_samples: run both members of a pair as one unroll of twice the width, or one after
            the other.
        sign_delta_loss_scalar: use the sign of the difference times this.
        divergence: what becomes of a task whose objective is not finite.
    """

    truncated_step: VectorizedStep
    truncation_schedule: TruncationSchedule
    std: float = 0.01
    steps_per_jit: int = 10
    loss_type: LossType = "avg"
    recompute_samples: int = 50
    clip_loss_diff: float | None = None
    stack_antithetic_samples: bool = True
    sign_delta_loss_scalar: float | None = None
    divergence: common.Divergence = "mask"

    def __post_init__(self) -> None:
        check_vectorized(self)
        common.check_es_options(self)
        if self.steps_per_jit < 1:
            raise ValueError(f"FullES(steps_per_jit={self.steps_per_jit}): steps_per_jit must be at least 1")
        if self.loss_type not in get_args(LossType):
            raise ValueError(
                f"FullES(loss_type={self.loss_type!r}): choose one of {', '.join(get_args(LossType))}"
            )
        if self.recompute_samples < 1:
            raise ValueError(
                f"FullES(recompute_samples={self.recompute_samples}): recompute_samples must be at least 1"
            )
        schedule = getattr(self.truncated_step, "trunc_sched", None)
        if schedule is not None and not isinstance(schedule, NeverEndingTruncationSchedule):
            raise ValueError(
                f"FullES(truncated_step with trunc_sched={schedule}): FullES ends episodes itself; give the "
                "step a NeverEndingTruncationSchedule and FullES the schedule"
            )
        if isinstance(self.truncation_schedule, NeverEndingTruncationSchedule):
            raise ValueError(
                "FullES(truncation_schedule=NeverEndingTruncationSchedule()): an episode needs a length"
            )

    @classmethod
    def schedule_of_step(
        cls, trunc_sched: TruncationSchedule | None, options: dict[str, Any]
    ) -> TruncationSchedule:
        unroll_length = options.pop("unroll_length", None)
        if (trunc_sched is None) == (unroll_length is None):
            raise ValueError(
                f"FullES(trunc_sched={trunc_sched}, unroll_length={unroll_length}): give the episode's "
                "length as exactly one of them"
            )
        options["truncation_schedule"] = trunc_sched or ConstantTruncationSchedule(unroll_length)
        return NeverEndingTruncationSchedule()

    def init_worker_state(self, worker_weights: WorkerWeights, key: PRNGKey) -> UnrollState:
        del worker_weights, key
        return UnrollState()

    def estimate(
        self, worker_weights: WorkerWeights, key: PRNGKey, state: UnrollState, data: Batch, with_summary: bool
    ) -> tuple[GradientEstimatorOut, Metrics]:
        num_tasks = self.truncated_step.num_tasks
        key, noise_key = jax.random.split(key)
        key, init_key = jax.random.split(key)
        noise, *thetas = common.vector_sample_perturbations(
            worker_weights.theta, noise_key, self.std, num_tasks
        )
        length = self._episode_length(worker_weights, init_key)
        loop = self._unroll(worker_weights, common.Pair(*thetas), init_key, key, length, data)
        objective = self._objective(worker_weights, common.Pair(*thetas), loop, length, data)
        pos = common.one_side(loop.out, 0)
        everything = jnp.ones((1, num_tasks), bool)
        difference = common.loss_difference(
            objective[:1], objective[1:], everything, self.divergence, self.clip_loss_diff
        )
        signed = common.with_sign(difference, self.sign_delta_loss_scalar)
        grad = common.es_gradient(noise, signed.delta[0], self.std, difference.weight)
        out = common.es_out(grad, difference, state, pos)
        steps = length.astype(jnp.float32)
        out = out._replace(weight=out.weight * steps, inner_steps=2 * num_tasks * length)
        return out, common.es_metrics(grad, difference, pos, with_summary)

    def steps_of_data(self) -> int:
        if not isinstance(self.truncation_schedule, ConstantTruncationSchedule):
            raise ValueError(
                f"FullES(truncation_schedule={self.truncation_schedule}): a system that streams its data "
                "needs a ConstantTruncationSchedule, for its data is fetched before the length is drawn"
            )
        return self._rounded(self.truncation_schedule.total_length)

    def _rounded(self, length: int) -> int:
        return max(length // self.steps_per_jit, 1) * self.steps_per_jit

    def _episode_length(self, worker_weights: WorkerWeights, init_key: PRNGKey) -> jax.Array:
        """`[]` int32, one length for all tasks."""
        key = jax.random.fold_in(init_key, _SCHEDULE_STREAM)
        length = self.truncation_schedule.init(key, worker_weights.outer_state).length
        return jnp.maximum(length // self.steps_per_jit, 1) * self.steps_per_jit

    def _unroll(
        self,
        worker_weights: WorkerWeights,
        thetas: common.Pair,
        init_key: PRNGKey,
        key: PRNGKey,
        length: jax.Array,
        data: Batch,
    ) -> _Loop:
        """Whole episodes of both members, `steps_per_jit` steps at a time: the length is traced."""

        def start(theta: Theta) -> PyTree:
            return self.truncated_step.init_step_state(
                theta, worker_weights.outer_state, init_key, theta_is_vector=True, num_steps_override=length
            )

        def next_chunk(chunk: jax.Array, key: PRNGKey, states: common.Pair, running: _Running) -> _Loop:
            key, unroll_key = jax.random.split(key)
            key, _ = jax.random.split(key)
            states, out = common.antithetic_unroll(
                self.truncated_step,
                thetas,
                states,
                unroll_key,
                self.steps_per_jit,
                common.Inputs(self._slice(data, chunk), worker_weights.outer_state, length),
                stacked=self.stack_antithetic_samples,
            )
            running = _Running(
                total=running.total + jnp.sum(out.loss, axis=1),
                lowest=jnp.minimum(running.lowest, jnp.min(out.loss, axis=1)),
                last=out.loss[:, -1],
            )
            return _Loop(chunk + 1, key, states, running, out)

        zeros = jnp.zeros((2, self.truncated_step.num_tasks), jnp.float32)
        nothing = _Running(zeros, zeros + jnp.inf, zeros)
        beginning = (
            jnp.zeros((), jnp.int32),
            key,
            common.Pair(start(thetas.pos), start(thetas.neg)),
            nothing,
        )
        # Only its shape matters: the first chunk replaces it. Running that chunk before the loop would
        # compile the step twice.
        no_out = jax.tree.map(
            lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), jax.eval_shape(next_chunk, *beginning).out
        )
        return jax.lax.while_loop(
            lambda loop: loop.chunk * self.steps_per_jit < length,
            lambda loop: next_chunk(loop.chunk, loop.key, loop.states, loop.running),
            _Loop(*beginning, no_out),
        )

    def _slice(self, data: Batch, chunk: jax.Array) -> Batch:
        if not is_streamed(data):
            return data
        start = chunk * self.steps_per_jit
        return jax.tree.map(lambda leaf: jax.lax.dynamic_slice_in_dim(leaf, start, self.steps_per_jit), data)

    def _objective(
        self, worker_weights: WorkerWeights, thetas: common.Pair, loop: _Loop, length: jax.Array, data: Batch
    ) -> jax.Array:
        """`[2, N]`."""
        if self.loss_type == "avg":
            return loop.running.total / length
        if self.loss_type == "min":
            return loop.running.lowest
        if self.loss_type == "last":
            return loop.running.last
        return self._recomputed(worker_weights, thetas, loop, data)

    def _recomputed(
        self, worker_weights: WorkerWeights, thetas: common.Pair, loop: _Loop, data: Batch
    ) -> jax.Array:
        """`[2, N]`: losses of the final states, averaged over fresh outer batches that both members share."""

        def one_batch(key: PRNGKey) -> jax.Array:
            def one_side(theta: Theta, state: PyTree) -> jax.Array:
                return self.truncated_step.meta_loss_batch(
                    theta, state, key, data, worker_weights.outer_state, theta_is_vector=True
                )

            return jax.vmap(one_side)(common.stack_pair(thetas), common.stack_pair(loop.states))

        losses = jax.lax.map(one_batch, jax.random.split(loop.key, self.recompute_samples))
        return jnp.mean(losses, axis=0)
