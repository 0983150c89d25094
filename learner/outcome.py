"""What one outer update did."""

import dataclasses
import enum

from learner.ring import Published


class Effect(enum.StrEnum):
    """What became of theta."""

    MOVED = "moved"
    EMPTY = "empty"
    """No gradient had any weight; theta stayed."""
    REVERTED = "reverted"
    """Theta or the optimizer's state would not have stayed finite; both stayed as they were."""


@dataclasses.dataclass(frozen=True)
class Outcome:
    """The next version of theta, and how it came about.

    Attributes:
        published: the version; also where theta did not move, for versions count updates.
        effect: on theta.
        loss: weighted mean loss, or None where nothing had weight.
        grad_norm: of the mean gradient.
        update_norm: of theta's movement.
    """

    published: Published
    effect: Effect
    loss: float | None
    grad_norm: float
    update_norm: float
