"""Generalized persistent evolution strategies: noise that is reused for some inner steps or a whole episode.

Li, Harrison, Sohl-Dickstein, Smith and Metz, "Variance-Reduced Gradient Estimation via Noise-Reuse in Online
Evolution Strategies", NeurIPS 2023, https://arxiv.org/abs/2304.12180; with one noise per episode also Vicol,
Kolter and Swersky, "Low-Variance Gradient Estimation in Unrolled Computation Graphs with ES-Single", ICML
2023, https://arxiv.org/abs/2304.11153.

At the first step of an episode, and after every K steps of it, a task draws new noise. A loss at step t is
multiplied by `xi_t`, the sum of all noise drawn in its episode up to step t. Each noise vector is therefore
multiplied by all losses from its draw to the end of the episode, which is Stein's identity for each block of
steps (section 3 of the paper).
"""

import abc
import dataclasses
from typing import Any, NamedTuple, Self

import jax
import jax.numpy as jnp

from unspool.device_mesh import over_tasks
from unspool.estimates.estimate_report import es_estimate
from unspool.estimates.long_sums import RunningSum, sum_over_steps
from unspool.evolution.antithetic_pairs import AntitheticPairs
from unspool.evolution.evolution_strategy import EvolutionStrategy
from unspool.evolution.loss_difference import Sides, weighted_noise_sum
from unspool.evolution.repeated_step import apart, joined
from unspool.lazy_cond import lazy_cond
from unspool.outer_trainers.gradient_estimator import GradientEstimatorOut, Metrics, WorkerWeights
from unspool.outer_trainers.truncated_step import TruncatedUnrollOut, UnrollState
from unspool.steps.unroll import Inputs, Pair, antithetic_step, antithetic_thetas, one_side, where_tasks
from unspool.types import Batch, PRNGKey, PyTree, Theta


class NoiseReuseState(NamedTuple):
    """The state between truncations. The noise itself is not stored: it is redrawn from its key.

    Attributes:
        pos_state: unrolls under `theta + noise`; leaves lead with `[num_tasks * pairs_per_task]`.
        neg_state: unrolls under `theta - noise`.
        noise_key: `[num_tasks]`, the key of the current noise.
        age: `[num_tasks]` int32, steps since the start of the episode; zero if the next step starts one.
        accumulator: like theta, leaves `[num_tasks * pairs_per_task, ...]`, the sum of the noise drawn in the
            episode; None if that is always the current noise.
    """

    pos_state: UnrollState
    neg_state: UnrollState
    noise_key: PRNGKey
    age: jax.Array
    accumulator: Theta | None

    def replace(self, **changes: Any) -> Self:
        """Return a copy with some fields changed."""
        return self._replace(**changes)


class Draws(NamedTuple):
    """The noise draws of a truncation.

    Attributes:
        is_drawn: `[T, num_tasks]` bool; whether noise is drawn before the step.
        begins: `[T, num_tasks]` bool; whether the step starts an episode.
        noise_key: `[T, num_tasks]`, the key of the noise at the step.
    """

    is_drawn: jax.Array
    begins: jax.Array
    noise_key: PRNGKey


class _Carry(NamedTuple):
    states: Pair
    noise: Theta
    noise_key: PRNGKey
    age: jax.Array


class _WeightedNoise(NamedTuple):
    """The sum `sum_s xi_s delta_s` over the steps before a draw, and the values needed to continue it.

    Attributes:
        step: `[]`, the next step at which a task draws noise; T if there is none.
        sum: like theta, the sum so far.
        accumulator: leaves `[N, ...]`, `xi` of each pair before that step.
        first: `[N]`, the first step whose difference is not in the sum yet.
    """

    step: jax.Array
    sum: RunningSum
    accumulator: Theta
    first: jax.Array


class PairStep(abc.ABC):
    """One step of every pair."""

    @abc.abstractmethod
    def first_states(self, state: UnrollState) -> Pair:
        """Return the states of both members before the first step, from the initial state of the unrolls."""

    @abc.abstractmethod
    def step(
        self, theta: Theta, noise: Theta, states: Pair, key: PyTree, batch: Batch, inputs: Inputs
    ) -> tuple[Pair, TruncatedUnrollOut, Sides]:
        """Return the next states, the outputs of the positive members, and the losses of both sides."""


@dataclasses.dataclass(frozen=True)
class AntitheticStep(PairStep):
    """A step of both members, under `theta + noise` and `theta - noise`."""

    pairs: AntitheticPairs

    def first_states(self, state: UnrollState) -> Pair:
        return Pair(state, state)

    def step(
        self, theta: Theta, noise: Theta, states: Pair, key: PyTree, batch: Batch, inputs: Inputs
    ) -> tuple[Pair, TruncatedUnrollOut, Sides]:
        thetas = antithetic_thetas(theta, noise)
        step, stacked = self.pairs.unrolled_step, self.pairs.stacked
        states, out = antithetic_step(step, thetas, states, key, batch, inputs, stacked=stacked)
        return states, one_side(out, 0), Sides.of_pair(out.loss[0], out.loss[1])


@dataclasses.dataclass(frozen=True)
class NoiseReuse:
    """Estimates of an evolution strategy that reuses noise over several truncations.

    Unbiased for the loss smoothed by the noise if the initial state does not depend on theta, or if the step
    reports `is_done` before the reset and resets in a step of its own.

    Attributes:
        strategy: the options.
        steps_per_noise: the interval between draws within an episode, in steps; None for one draw per
            episode.
        pair_step: one step of every pair.
    """

    strategy: EvolutionStrategy
    steps_per_noise: int | None
    pair_step: PairStep

    def init_state(self, worker_weights: WorkerWeights, key: PRNGKey) -> NoiseReuseState:
        """Return the state before the first estimate. Consumes `key`."""
        theta, num_tasks = worker_weights.theta, self.strategy.truncated_step.num_tasks
        key, state_key = jax.random.split(key)
        state = self._pairs.unrolled_step.init_step_state(theta, worker_weights.outer_state, state_key)
        return NoiseReuseState(
            *self.pair_step.first_states(state),
            noise_key=jax.random.split(key, num_tasks),
            age=jnp.zeros(num_tasks, jnp.int32),
            accumulator=None if self.steps_per_noise is None else self._pairs.no_noise(theta),
        )

    def estimate(
        self,
        worker_weights: WorkerWeights,
        key: PRNGKey,
        state: NoiseReuseState,
        data: Batch,
        with_summary: bool,
    ) -> tuple[GradientEstimatorOut, Metrics]:
        """Return one estimate and its metrics. Consumes `key`."""
        theta, outer_state = worker_weights.theta, worker_weights.outer_state
        noise = self._pairs.perturbations.sample(theta, state.noise_key)
        carry = _Carry(Pair(state.pos_state, state.neg_state), noise, state.noise_key, state.age)
        end, (out, sides, draws) = self._unroll(theta, carry, key, Inputs(data, outer_state))
        difference = self.strategy.difference(sides, out, outer_state)
        accumulator = noise if state.accumulator is None else state.accumulator
        weighted = self._weighted_noise(theta, accumulator, draws, difference.delta)
        grad = self.strategy.gradient_of_truncation(weighted.sum.value, difference, outer_state)
        kept = None if state.accumulator is None else weighted.accumulator
        next_state = NoiseReuseState(*end.states, end.noise_key, end.age, kept)
        return es_estimate(grad, difference, next_state, out, with_summary)

    @property
    def _pairs(self) -> AntitheticPairs:
        return self.strategy.pairs

    @property
    def _pairs_per_task(self) -> int:
        return self.strategy.pairs_per_task

    def _unroll(
        self, theta: Theta, carry: _Carry, key: PRNGKey, inputs: Inputs
    ) -> tuple[_Carry, tuple[TruncatedUnrollOut, Sides, Draws]]:
        """Unroll all steps of a truncation; leaves of the outputs are `[T, ...]`. Consumes `key`."""
        unroll_key, noise_key = jax.random.split(key)

        def step(
            carry: _Carry, xs: tuple[PRNGKey, PyTree, Batch | None]
        ) -> tuple[_Carry, tuple[TruncatedUnrollOut, Sides, Draws]]:
            fresh_keys, step_key, batch = xs
            is_drawn, begins = self._is_drawn(carry.age), carry.age == 0
            noise, task_keys = self._drawn(theta, carry, is_drawn, fresh_keys)
            states, out, sides = self.pair_step.step(
                theta, noise, carry.states, step_key, inputs.of_step(batch), inputs
            )
            age = jnp.where(self._of_tasks(out.is_done), 0, carry.age + 1)
            return _Carry(states, noise, task_keys, age), (out, sides, Draws(is_drawn, begins, task_keys))

        keys = self._pairs.unrolled_step.keys_of_steps(jax.random.split(unroll_key, self.strategy.num_steps))
        return jax.lax.scan(step, carry, (self._fresh_keys(noise_key), keys, inputs.streamed()))

    def _fresh_keys(self, key: PRNGKey) -> PRNGKey:
        """Return the keys `[T, num_tasks]` for noise drawn at each step. Consumes `key`."""

        def of_step(number: jax.Array) -> PRNGKey:
            return jax.random.split(jax.random.fold_in(key, number), self.strategy.truncated_step.num_tasks)

        return jax.vmap(of_step)(jnp.arange(self.strategy.num_steps))

    def _is_drawn(self, age: jax.Array) -> jax.Array:
        return age == 0 if self.steps_per_noise is None else age % self.steps_per_noise == 0

    def _drawn(
        self, theta: Theta, carry: _Carry, is_drawn: jax.Array, fresh_keys: PRNGKey
    ) -> tuple[Theta, PRNGKey]:
        """Return the current noise and its keys, redrawn where `is_drawn`."""

        def of_task(
            theta: Theta, is_drawn: jax.Array, fresh_key: PRNGKey, noise: Theta, noise_key: PRNGKey
        ) -> tuple[Theta, PRNGKey]:
            def draw() -> tuple[Theta, PRNGKey]:
                return self._pairs.perturbations.sample_for_task(theta, fresh_key), fresh_key

            return lazy_cond(is_drawn, draw, (noise, noise_key))

        drawn = over_tasks(of_task, (None, 0, 0, 0, 0))
        in_force = apart(carry.noise, self._pairs_per_task)
        noise, keys = drawn(theta, is_drawn, fresh_keys, in_force, carry.noise_key)
        return joined(noise), keys

    def _weighted_noise(
        self, theta: Theta, accumulator: Theta, draws: Draws, delta: jax.Array
    ) -> _WeightedNoise:
        """Return the sum of all `xi_t delta_t`, where `xi_t` starts as `accumulator`.

        With draws at steps `d_1 < d_2 < ...`, `xi_t` is constant from one draw to the next, so

            sum_t xi_t delta_t = sum_k xi_(d_k) (sum of delta_t over d_k <= t < d_(k+1)),

        and the loop runs over draws, not over steps. Tasks draw at different steps: `first` holds the start
        of each pair's pending block of differences, and a draw adds only the blocks of the pairs that it
        belongs to.
        """
        steps = jnp.arange(self.strategy.num_steps, dtype=jnp.int32)  # int32 also with enable_x64
        any_drawn = jnp.any(draws.is_drawn, axis=1)

        def draw_after(step: jax.Array) -> jax.Array:
            return jnp.min(jnp.where(any_drawn & (steps > step), steps, self.strategy.num_steps))

        def sum_before(step: jax.Array, sums: _WeightedNoise, is_drawn: jax.Array) -> RunningSum:
            pending = (steps[:, None] >= sums.first[None]) & (steps[:, None] < step) & is_drawn[None]
            settled = weighted_noise_sum(sums.accumulator, sum_over_steps(jnp.where(pending, delta, 0)))
            return sums.sum.plus(settled)

        def at_draw(sums: _WeightedNoise) -> _WeightedNoise:
            is_drawn, begins, noise_key = jax.tree.map(lambda leaf: leaf[sums.step], draws)
            is_drawn = self._of_pairs(is_drawn)
            noise = self._pairs.perturbations.sample(theta, noise_key)
            longer = jax.tree.map(jnp.add, sums.accumulator, noise)
            felt = where_tasks(self._of_pairs(begins), noise, longer)
            return _WeightedNoise(
                step=draw_after(sums.step),
                sum=sum_before(sums.step, sums, is_drawn),
                accumulator=where_tasks(is_drawn, felt, sums.accumulator),
                first=jnp.where(is_drawn, sums.step, sums.first),
            )

        first = jnp.zeros(delta.shape[1], jnp.int32)
        start = _WeightedNoise(draw_after(jnp.int32(-1)), RunningSum.zero_like(theta), accumulator, first)
        sums = jax.lax.while_loop(lambda sums: sums.step < self.strategy.num_steps, at_draw, start)
        everyone = jnp.ones_like(first, bool)
        return sums._replace(sum=sum_before(jnp.int32(self.strategy.num_steps), sums, everyone))

    def _of_pairs(self, of_tasks: jax.Array) -> jax.Array:
        return jnp.repeat(of_tasks, self._pairs_per_task, axis=0)

    def _of_tasks(self, of_pairs: jax.Array) -> jax.Array:
        return of_pairs[:: self._pairs_per_task]


class ReusesNoise(abc.ABC):
    """Makes an estimator of an evolution strategy whose noise is reused."""

    @property
    @abc.abstractmethod
    def noise_reuse(self) -> NoiseReuse:
        """How the noise is reused."""

    def init_worker_state(self, worker_weights: WorkerWeights, key: PRNGKey) -> NoiseReuseState:
        return self.noise_reuse.init_state(worker_weights, key)

    def estimate(
        self,
        worker_weights: WorkerWeights,
        key: PRNGKey,
        state: NoiseReuseState,
        data: Batch,
        with_summary: bool,
    ) -> tuple[GradientEstimatorOut, Metrics]:
        return self.noise_reuse.estimate(worker_weights, key, state, data, with_summary)
