"""What a step of an unrolled system reports, and what is known of its episodes beforehand."""

from typing import Any, NamedTuple, Self

import jax

from unspool.types import PyTree


class ResidentData(NamedTuple):
    """Data that stays on the device: every step gets all of it and draws its own batch inside the compiled
    unroll.

    Attributes:
        arrays: any pytree of arrays.
    """

    arrays: PyTree


class TruncatedUnrollOut(NamedTuple):
    """What one step reports. Leaves have shape `[num_tasks]`, and `[steps, num_tasks]` after an unroll.

    `TruncatedStep` says how `is_done` and `mask` tell of an episode's end.

    Attributes:
        loss: float32; anything where `mask` is False.
        is_done: bool; the episode ends with this step.
        task_param: which task it was, leaves `[num_tasks, ...]`; `()` where there is nothing to tell.
        iteration: int32, inner steps since the episode began, this one included; 0 at a step that only
            resets.
        mask: bool; False marks a step without a loss. One that only resets has none.
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
    """What is known beforehand of a system's episodes: constants by which estimates are scaled.

    Attributes:
        mean_length: `[]`, steps of an episode in the mean, without one that only resets; None if unknown.
        loss_fraction: `[]`, the share of all steps, resets included, that have a loss (`mask`).
    """

    mean_length: jax.Array | float | None = None
    loss_fraction: jax.Array | float = 1.0


def with_a_reset_step(mean_length: jax.Array | float | None) -> EpisodesInExpectation:
    """Of a system that resets in a step of its own, and whose other steps all have a loss."""
    if mean_length is None:
        return EpisodesInExpectation()
    return EpisodesInExpectation(mean_length, mean_length / (mean_length + 1))
