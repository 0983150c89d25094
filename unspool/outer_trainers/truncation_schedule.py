"""Schedules for the length of inner episodes."""

import abc
import dataclasses
from collections.abc import Callable
from typing import NamedTuple, Protocol, TypeAlias, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from unspool.config.arguments import check_not_negative, check_whole_number, refusal
from unspool.lazy_cond import lazy_cond
from unspool.types import Arrays, OuterState, PRNGKey, Scalar, ScalarLike

_SHORTEST = 1  # lower bound for any schedule: an episode without steps would be reset at every step

State: TypeAlias = Arrays
"""The state of a schedule."""


@runtime_checkable
class ScalarSchedule(Protocol):
    """A number as a function of the outer iteration."""

    def __call__(self, step: ScalarLike, max_steps: int | None = None) -> ScalarLike: ...


class LengthState(NamedTuple):
    """The length of the current episode, `[]` int32: the number of inner steps between resets."""

    length: Int[Array, ""]


class ConstantTruncationState(NamedTuple):
    """The length of every episode, `[]` int32, for code that depends on it (an inner optimizer's
    `num_steps`).
    """

    length: Int[Array, ""]


class TruncationSchedule(abc.ABC):
    """A rule for the end of an episode. The object is stateless; its state is passed explicitly.

    The state has `.length`, the number of inner steps of the episode, unless episodes never end.
    """

    @abc.abstractmethod
    def init(self, key: PRNGKey, outer_state: OuterState) -> State:
        """Return the state at the start of an episode. Consumes `key`."""

    @abc.abstractmethod
    def next_state(
        self, state: State, step: ScalarLike, key: PRNGKey, outer_state: OuterState
    ) -> tuple[State, Bool[Array, ""]]:
        """Return the next state, and whether the inner step just taken ends the episode.

        Args:
            state: from `init` or the previous call.
            step: `[]`, the number of inner steps of this episode, including the one just taken.
            key: consumed only if the episode is over and a new length is drawn.
            outer_state: for lengths that change over outer training.

        Returns:
            `(state, is_done)`. If `is_done`, the state belongs to the next episode.
        """

    def next_state_lazily(
        self, state: State, step: ScalarLike, make_key: Callable[[], PRNGKey], outer_state: OuterState
    ) -> tuple[State, Bool[Array, ""]]:
        """Return `next_state` with a key that is made only if needed. On a CPU core, unused keys would take a
        sixth of a small system's time.
        """
        return self.next_state(state, step, make_key(), outer_state)

    def longest_episode(self) -> int | None:
        """Return the maximum number of inner steps of an episode, or None if there is no maximum."""
        return None

    def mean_length(self, outer_state: OuterState) -> Scalar | float | None:
        """Return the mean length of episodes `[]`, by which estimates are scaled; None if unknown."""
        del outer_state
        return None


class _DrawnLengths(TruncationSchedule):
    """A schedule that draws the next length at the end of an episode."""

    def next_state(
        self, state: LengthState, step: ScalarLike, key: PRNGKey, outer_state: OuterState
    ) -> tuple[LengthState, Bool[Array, ""]]:
        return self.next_state_lazily(state, step, lambda: key, outer_state)

    def next_state_lazily(
        self, state: LengthState, step: ScalarLike, make_key: Callable[[], PRNGKey], outer_state: OuterState
    ) -> tuple[LengthState, Bool[Array, ""]]:
        is_done = jnp.asarray(step) >= state.length
        return lazy_cond(is_done, lambda: self.init(make_key(), outer_state), state), is_done


@dataclasses.dataclass(frozen=True)
class ConstantTruncationSchedule(TruncationSchedule):
    """Episodes of `total_length` inner steps."""

    total_length: int

    def __post_init__(self) -> None:
        check_whole_number(self, "total_length")

    def init(self, key: PRNGKey, outer_state: OuterState) -> ConstantTruncationState:
        del key, outer_state
        return ConstantTruncationState(length=jnp.asarray(self.total_length, jnp.int32))

    def next_state(
        self, state: ConstantTruncationState, step: ScalarLike, key: PRNGKey, outer_state: OuterState
    ) -> tuple[ConstantTruncationState, Bool[Array, ""]]:
        del key, outer_state
        return state, jnp.asarray(step) >= self.total_length

    def longest_episode(self) -> int:
        return self.total_length

    def mean_length(self, outer_state: OuterState) -> float:
        del outer_state
        return float(self.total_length)


@dataclasses.dataclass(frozen=True)
class NeverEndingTruncationSchedule(TruncationSchedule):
    """Episodes that never end, for estimators that unroll whole episodes and set the length themselves."""

    def init(self, key: PRNGKey, outer_state: OuterState) -> tuple[()]:
        del key, outer_state
        return ()

    def next_state(
        self, state: tuple[()], step: ScalarLike, key: PRNGKey, outer_state: OuterState
    ) -> tuple[tuple[()], Bool[Array, ""]]:
        del step, key, outer_state
        return state, jnp.asarray(False)


@dataclasses.dataclass(frozen=True)
class LogUniformLengthSchedule(_DrawnLengths):
    """Random lengths, log-uniform in `[min_length, max_length)` and rounded down.

    Attributes:
        min_length: inner steps, or a schedule of `outer_state.outer_iteration`.
        max_length: the same; reached only where it equals `min_length`.
    """

    min_length: int | ScalarSchedule
    max_length: int | ScalarSchedule

    def __post_init__(self) -> None:
        for name in ("min_length", "max_length"):
            if not callable(getattr(self, name)):
                check_whole_number(self, name)
        if (
            not callable(self.min_length)
            and not callable(self.max_length)
            and self.max_length < self.min_length
        ):
            raise ValueError(
                f"LogUniformLengthSchedule(min_length={self.min_length}, max_length={self.max_length}): "
                "max_length must be at least min_length"
            )

    def init(self, key: PRNGKey, outer_state: OuterState) -> LengthState:
        low, high = self._bounds(outer_state)
        drawn = jax.random.uniform(key, (), jnp.float32, minval=jnp.log(low), maxval=jnp.log(high))
        # In float32, exp(log(13)) is less than 13 and would be rounded down to 12.
        length = jnp.clip(jnp.exp(drawn), low, high).astype(jnp.int32)
        return LengthState(jnp.maximum(length, _SHORTEST))

    def longest_episode(self) -> int | None:
        return None if callable(self.max_length) else int(self.max_length)

    def mean_length(self, outer_state: OuterState) -> Scalar:
        """Return the mean of `floor(X)`: `floor(min_length)` plus the sum of `P(X >= k)` over larger k."""
        low, high = self._bounds(outer_state)
        first, last = jnp.floor(low), jnp.floor(high)
        # P(X >= k) = (log(high) - log(k)) / (log(high) - log(low)); the log(k) add up to log-factorials.
        log_factorials = jax.lax.lgamma(last + 1) - jax.lax.lgamma(first + 1)
        one_length = high <= low
        spread = jnp.where(one_length, 1.0, jnp.log(high) - jnp.log(low))
        beyond_first = ((last - first) * jnp.log(high) - log_factorials) / spread
        return jnp.maximum(jnp.where(one_length, first, first + beyond_first), _SHORTEST)

    def _bounds(self, outer_state: OuterState) -> tuple[Scalar, Scalar]:
        """Return the current bounds as float32."""
        low, high = (
            bound(outer_state.outer_iteration) if callable(bound) else bound
            for bound in (self.min_length, self.max_length)
        )
        return jnp.asarray(low, jnp.float32), jnp.asarray(high, jnp.float32)


@dataclasses.dataclass(frozen=True)
class ScheduledTruncationSchedule(_DrawnLengths):
    """Lengths from a schedule of the outer iteration, with optional Gaussian noise.

    Attributes:
        schedule: mean length as a function of `outer_state.outer_iteration`.
        max_steps: passed to `schedule`.
        std: standard deviation of the noise in inner steps; 0 for none.
        min_length: lower bound on the length if `std` is positive.
    """

    schedule: ScalarSchedule
    max_steps: int | None = None
    std: float = 0
    min_length: int = 10

    def __post_init__(self) -> None:
        if not callable(self.schedule):
            rule = "schedule must be a function of the outer iteration; ConstantTruncationSchedule needs none"
            raise refusal(self, "schedule", rule)
        if self.max_steps is not None:
            check_whole_number(self, "max_steps")
        check_not_negative(self, "std")
        check_whole_number(self, "min_length")

    def init(self, key: PRNGKey, outer_state: OuterState) -> LengthState:
        length = self._scheduled(outer_state)
        if self.std > 0:
            spread = (jax.random.normal(key, (), jnp.float32) * self.std).astype(jnp.int32)
            length = jnp.maximum(length + spread, self.min_length)
        return LengthState(jnp.maximum(length, _SHORTEST))

    def mean_length(self, outer_state: OuterState) -> Scalar:
        """Return the mean length: exact without noise; with it, the mean before rounding to integers."""
        mean = self._scheduled(outer_state).astype(jnp.float32)
        if self.std > 0:
            # E[max(X, m)] = m + std (a cdf(a) + pdf(a)) for X ~ N(mean, std^2), with a = (mean - m) / std.
            above = (mean - self.min_length) / self.std
            density = jnp.exp(jax.scipy.stats.norm.logpdf(above))
            mean = self.min_length + self.std * (above * jax.scipy.stats.norm.cdf(above) + density)
        return jnp.maximum(mean, _SHORTEST)

    def _scheduled(self, outer_state: OuterState) -> Int[Array, ""]:
        return jnp.asarray(self.schedule(outer_state.outer_iteration, self.max_steps)).astype(jnp.int32)
