"""What one outer update did: to theta, and in figures for status, table, curves and TensorBoard."""

import dataclasses
import enum
from typing import NamedTuple

from learner.storage.thetas import Published
from unspool.types import PyTree


class Effect(enum.StrEnum):
    """What an update did to theta."""

    MOVED = "moved"
    EMPTY = "empty"
    """No gradient had any weight; theta stayed."""
    REVERTED = "reverted"
    """Theta or the optimizer's state would not have stayed finite; both stayed as they were."""


@dataclasses.dataclass(frozen=True)
class Outcome:
    """The next theta, and the figures of the arithmetic that made it.

    Attributes:
        published: theta as it travels; also where it did not move, for outer steps count updates.
        theta: as a tree.
        learner_state: of the outer optimizer, as a tree.
        effect: on theta.
        loss: weighted mean loss, or None where nothing had weight.
        grad_norm: of the mean gradient.
        update_norm: of theta's movement.
    """

    published: Published
    theta: PyTree
    learner_state: PyTree
    effect: Effect
    loss: float | None
    grad_norm: float
    update_norm: float


class UpdateRecord(NamedTuple):
    """The figures of an outer update, one row of the table.

    Attributes:
        outer_step: theta's, after it.
        unix_time_s: when.
        elapsed_s: of the run, over all restarts of the learner.
        loss: weighted mean loss; NaN where nothing had weight.
        grad_norm: of the mean gradient.
        update_norm: of theta's movement.
        staleness_mean: outer steps that the gradients were behind.
        staleness_max: the most of them.
        contributions: gradients in it.
        weight: their sum of weights.
        inner_steps: inner training steps behind them.
        wait_s: from the update before until the batch was complete.
        apply_s: from then until the new theta was announced.
        diverged_tasks: tasks whose loss was not finite, over all gradients.
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
