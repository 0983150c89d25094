"""The outputs of a step of an unrolled system, and the expected properties of its episodes."""

from typing import Any, NamedTuple, Self

import jax

from unspool.types import PyTree


class ResidentData(NamedTuple):
    """Arrays on the device, in any pytree. Every step gets all of them and draws its batch inside the
    compiled unroll.
    """

    arrays: PyTree


class TruncatedUnrollOut(NamedTuple):
    """The outputs of one step. Leaves have shape `[num_tasks]`, and `[steps, num_tasks]` after an unroll.

    `TruncatedStep` describes how `is_done` and `mask` mark the end of an episode.

    Attributes:
        loss: float32; arbitrary where `mask` is False.
        is_done: bool; whether the episode ends with this step.
        task_param: the parameters of the task, leaves `[num_tasks, ...]`; `()` if it has none.
        iteration: int32, inner steps since the start of the episode, including this one; 0 at a step that
            only resets.
        mask: bool; False for a step without a loss. A step that only resets has no loss.
        episode_length: `[num_tasks]` int32, the length of the episode that this step belongs to, or None if
            unknown.
    """

    loss: jax.Array
    is_done: jax.Array
    task_param: PyTree
    iteration: jax.Array
    mask: jax.Array
    episode_length: jax.Array | None = None

    def replace(self, **changes: Any) -> Self:
        """Return a copy with some fields changed."""
        return self._replace(**changes)


class EpisodesInExpectation(NamedTuple):
    """Expected properties of a system's episodes, by which estimates are scaled.

    Attributes:
        mean_length: `[]`, mean number of steps of an episode, without a step that only resets; None if
            unknown.
        loss_fraction: `[]`, the fraction of all steps, including resets, that have a loss (`mask`).
    """

    mean_length: jax.Array | float | None = None
    loss_fraction: jax.Array | float = 1.0


def with_a_reset_step(mean_length: jax.Array | float | None) -> EpisodesInExpectation:
    """Return the expectations for a system with separate reset steps and a loss in all other steps."""
    if mean_length is None:
        return EpisodesInExpectation()
    return EpisodesInExpectation(mean_length, mean_length / (mean_length + 1))
