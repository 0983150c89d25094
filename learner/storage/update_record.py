"""The result of an outer update: its effect on theta, and its values for status, table and TensorBoard."""

import dataclasses
import enum
from typing import NamedTuple

from learner.storage.thetas import Published
from unspool.types import PyTree


class Effect(enum.StrEnum):
    """The effect of an update on theta."""

    MOVED = "moved"
    EMPTY = "empty"
    """No gradient had weight; theta is unchanged."""
    REVERTED = "reverted"
    """Theta or the optimizer's state would have become non-finite; both are unchanged."""


@dataclasses.dataclass(frozen=True)
class Outcome:
    """The result of applying a batch.

    Attributes:
        published: the next theta, serialized; present even if unchanged, because outer steps count updates.
        theta: the next theta, as a tree.
        learner_state: the outer optimizer's state, as a tree.
        effect: the effect on theta.
        loss: the weighted mean loss, or None if no gradient had weight.
        grad_norm: the norm of the mean gradient.
        update_norm: the norm of the change in theta.
    """

    published: Published
    theta: PyTree
    learner_state: PyTree
    effect: Effect
    loss: float | None
    grad_norm: float
    update_norm: float


class UpdateRecord(NamedTuple):
    """The record of an outer update, one row of the table.

    Attributes:
        outer_step: theta's outer step after the update.
        unix_time_s: the time of the update.
        elapsed_s: the run's elapsed time, across all restarts of the learner.
        loss: the weighted mean loss; NaN if no gradient had weight.
        grad_norm: the norm of the mean gradient.
        update_norm: the norm of the change in theta.
        staleness_mean: the mean number of outer steps that the gradients were behind.
        staleness_max: the maximum number of outer steps that a gradient was behind.
        contributions: the number of estimates in the batch.
        weight: the sum of their weights.
        inner_steps: the number of inner steps computed for them.
        wait_s: the time from the previous update until the batch was complete.
        apply_s: the time from then until the new theta was announced.
        diverged_tasks: the number of tasks whose loss was not finite.
    """

    outer_step: int
    unix_time_s: float
    elapsed_s: float
    loss: float
    grad_norm: float
    update_norm: float
    staleness_mean: float
    staleness_max: int
    contributions: int
    weight: float
    inner_steps: int
    wait_s: float
    apply_s: float
    diverged_tasks: int = 0
