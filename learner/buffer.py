"""Gradients that have arrived and are not yet in theta: a bounded queue that no lane can crowd out."""

import dataclasses
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

from numpy.typing import NDArray


@dataclasses.dataclass(frozen=True, eq=False)
class Contribution:
    """One accepted push.

    Attributes:
        lane: whose estimate it is.
        seq: which of the lane's.
        theta_version: the theta it was made with.
        worker_id: who sent it.
        push_id: the sender's name for it.
        weight: in the mean; 0 counts as an arrival and changes nothing.
        mean_loss: of the unroll.
        grad: theta's leaves in canonical order, or None where it was not finite.
        inner_steps: inner training steps it cost.
        arrived_s: on the learner's clock.
    """

    lane: int
    seq: int
    theta_version: int
    worker_id: str
    push_id: int
    weight: float
    mean_loss: float
    grad: Sequence[NDArray[Any]] | None
    inner_steps: int
    arrived_s: float


class GradientBuffer:
    """Contributions in order of arrival."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._items: list[Contribution] = []

    def __len__(self) -> int:
        return len(self._items)

    def __iter__(self) -> Iterator[Contribution]:
        return iter(self._items)

    @property
    def full(self) -> bool:
        """Whether nothing more is taken in."""
        return len(self._items) >= self._capacity

    def add(self, contribution: Contribution) -> None:
        """Append a contribution.

        Raises:
            OverflowError: the buffer is full; callers ask before.
        """
        if self.full:
            raise OverflowError(f"GradientBuffer(capacity={self._capacity}): full")
        self._items.append(contribution)

    def count(self, lanes: Collection[int]) -> int:
        """Return how many contributions of these lanes wait."""
        return sum(item.lane in lanes for item in self._items)

    def lanes(self) -> set[int]:
        """Return the lanes that have a contribution."""
        return {item.lane for item in self._items}

    def fair(self, batch: int) -> list[Contribution]:
        """Return up to `batch` contributions, oldest first, a lane's second only after every lane's first."""
        round_of_lane: dict[int, int] = {}
        rounds = []
        for position, item in enumerate(self._items):
            turn = round_of_lane[item.lane] = round_of_lane.get(item.lane, 0) + 1
            rounds.append((turn, position, item))
        return [item for _, _, item in sorted(rounds, key=lambda entry: entry[:2])[:batch]]

    def take(self, chosen: Collection[Contribution]) -> None:
        """Remove contributions."""
        gone = set(chosen)
        self._items = [item for item in self._items if item not in gone]

    def drop(self, doomed: Callable[[Contribution], bool]) -> list[Contribution]:
        """Remove and return the contributions for which `doomed` holds."""
        dropped = [item for item in self._items if doomed(item)]
        self.take(dropped)
        return dropped
