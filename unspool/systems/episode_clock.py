"""Step counters for systems whose episodes all have the same length.

A step that ends an episode reports its loss and returns the start of the next episode, so an episode of `T`
steps takes exactly `T` steps, and truncations whose length divides `T` stay aligned with episodes.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from unspool.config.arguments import check_whole_number, refusal
from unspool.outer_trainers.truncated_step import EpisodesInExpectation, TruncatedUnrollOut
from unspool.types import PRNGKey, Scalar


class EpisodeClock(NamedTuple):
    """The position of an unroll in its episode.

    Attributes:
        step: `[]` int32, steps since the start of the episode.
        length: `[]` int32, the number of steps of the episode; None if it never ends.
    """

    step: Int[Array, ""]
    length: Int[Array, ""] | None


def check(system: Any) -> None:
    """Check the `episode_length` and `stagger` of a system.

    The first episode of a system with a `stagger` is shortened to a random multiple of it, so that unrolls
    are at different steps of their episodes. Episodes of length None never end.
    """
    length, stagger = system.episode_length, system.stagger
    check_whole_number(system, "stagger", at_least=0)
    if length is not None:
        check_whole_number(system, "episode_length")
    elif stagger:
        raise refusal(system, "stagger", "episodes that never end cannot be staggered; give episode_length")
    if stagger and length % stagger:
        raise refusal(system, "stagger", f"episode_length={length} must be a multiple of stagger")


def first(system: Any, key: PRNGKey) -> EpisodeClock:
    """Return the clock at the start of a system's first episode. Consumes `key`."""
    clock = _restarted(system)
    if system.episode_length is None or not system.stagger:
        return clock
    multiple = jax.random.randint(key, (), 1, system.episode_length // system.stagger + 1, jnp.int32)
    return clock._replace(length=system.stagger * multiple)


def after_step(system: Any, clock: EpisodeClock) -> tuple[EpisodeClock, Scalar]:
    """Return the clock after one step, reset if the episode has ended, and whether it has ended."""
    moved = clock._replace(step=clock.step + 1)
    if clock.length is None:
        return moved, jnp.zeros((), bool)
    is_done = moved.step >= clock.length
    return jax.tree.map(lambda new, old: jnp.where(is_done, new, old), _restarted(system), moved), is_done


def step_out(
    loss: Scalar, is_done: Scalar, clock: EpisodeClock, mask: Scalar | None = None
) -> TruncatedUnrollOut:
    """Return a step's output, given the clock before the step. If `mask` is None, every step has a loss."""
    mask = jnp.ones((), bool) if mask is None else mask
    return TruncatedUnrollOut(
        loss=jnp.where(mask, loss, 0.0),
        is_done=is_done,
        task_param=(),
        iteration=clock.step + 1,
        mask=mask,
        episode_length=clock.length,
    )


def expected(system: Any, loss_fraction: float = 1.0) -> EpisodesInExpectation:
    """Return the expected properties of a system's episodes, ignoring the first, staggered ones."""
    length = system.episode_length
    return EpisodesInExpectation(None if length is None else float(length), loss_fraction)


def _restarted(system: Any) -> EpisodeClock:
    length = system.episode_length
    length = None if length is None else jnp.full((), length, jnp.int32)
    return EpisodeClock(jnp.zeros((), jnp.int32), length)
