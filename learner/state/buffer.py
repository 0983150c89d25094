"""The buffer of accepted gradients that are not yet applied: a bounded queue that is fair to all lanes."""

import dataclasses
import functools
import math
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any, NamedTuple

from numpy.typing import NDArray

from protos.unspool.v1.learner_pb2 import GradientEstimatorOut, Part


class Estimate(NamedTuple):
    """The identity of an estimate.

    Attributes:
        lane: the number of its lane.
        seq: its sequence number within the lane.
        outer_step: the outer step of the theta that it was computed at.
    """

    lane: int
    seq: int
    outer_step: int


@dataclasses.dataclass(frozen=True, eq=False)
class BufferedPush:
    """One accepted push: a single estimate, or the weighted mean of several, which cannot be split.

    Attributes:
        lane: the lane of the estimate; for a merged push, that of the first one.
        seq: the estimate's sequence number; for a merged push, that of the first one.
        outer_step: the theta it was computed at; for a merged push, the oldest.
        session_id: the session that sent it.
        push_id: the sender's id of it.
        weight: its weight in the mean; with 0, it counts as an arrival and changes nothing.
        mean_loss: the mean loss of the unroll.
        grad: theta's leaves in canonical order, or None if the gradient was not finite.
        inner_steps: the number of inner steps computed for it.
        arrived_s: the arrival time on the learner's clock.
        merged: the identities of the merged estimates; empty for a single estimate.
        diverged_tasks: the number of tasks whose loss was not finite.
    """

    lane: int
    seq: int
    outer_step: int
    session_id: str
    push_id: int
    weight: float
    mean_loss: float
    grad: Sequence[NDArray[Any]] | None
    inner_steps: int
    arrived_s: float
    merged: tuple[Estimate, ...] = ()
    diverged_tasks: int = 0

    @classmethod
    def of(
        cls, push: GradientEstimatorOut, parts: Sequence[Part], session_id: str, arrived_s: float
    ) -> "BufferedPush":
        """Return a push as it is buffered, without its gradient.

        The weight and loss of a merged push are computed from its parts, for consistency with the values
        recorded for each part; its outer step is the oldest of its parts.
        """
        weight, mean_loss = push.weight, push.mean_loss
        if push.parts:
            weight = math.fsum(part.weight for part in parts)
            losses = math.fsum(part.weight * part.mean_loss for part in parts if part.weight)
            mean_loss = losses / weight if weight else 0.0
        return cls(
            lane=parts[0].lane,
            seq=parts[0].seq,
            outer_step=min(part.outer_step for part in parts),
            session_id=session_id,
            push_id=push.push_id,
            weight=weight,
            mean_loss=mean_loss,
            grad=None,
            inner_steps=sum(part.unroll_info.inner_steps for part in parts),
            arrived_s=arrived_s,
            merged=tuple(Estimate(part.lane, part.seq, part.outer_step) for part in push.parts),
            diverged_tasks=sum(part.unroll_info.diverged_tasks for part in parts),
        )

    @functools.cached_property
    def estimates(self) -> tuple[Estimate, ...]:
        """The identities of its estimates, at least one."""
        return self.merged or (Estimate(self.lane, self.seq, self.outer_step),)

    def weighed(self, factor: float) -> "BufferedPush":
        """Return a copy with the weight multiplied by `factor`."""
        return dataclasses.replace(self, weight=factor * self.weight)


class GradientBuffer:
    """Pushes in order of arrival. Length and capacity count estimates."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._items: list[BufferedPush] = []
        self._of_lane: Counter[int] = Counter()

    def __len__(self) -> int:
        return self._of_lane.total()

    def __iter__(self) -> Iterator[BufferedPush]:
        return iter(self._items)

    @property
    def full(self) -> bool:
        """Whether the buffer accepts no further pushes."""
        return len(self) >= self._capacity

    def add(self, push: BufferedPush) -> None:
        """Append a push.

        Raises:
            OverflowError: the buffer is full; check `full` first.
        """
        if self.full:
            raise OverflowError(f"GradientBuffer(capacity={self._capacity}): full")
        self._items.append(push)
        self._of_lane.update(estimate.lane for estimate in push.estimates)

    def count(self, lanes: Collection[int]) -> int:
        """Return the number of buffered estimates of these lanes."""
        return sum(self._of_lane[lane] for lane in lanes)

    def lanes(self) -> set[int]:
        """Return the lanes that have an estimate in the buffer."""
        return set(self._of_lane)

    def fair(self, batch: int) -> list[BufferedPush]:
        """Return pushes with `batch` estimates in total, or all pushes if there are fewer.

        The order is round-robin over lanes, oldest first: a lane's second estimate comes after every lane's
        first. The total exceeds `batch` if the last push is a merged one.
        """
        round_of_lane: dict[int, int] = {}
        rounds = []
        for position, item in enumerate(self._items):
            lanes = [lane for lane, _, _ in item.estimates]
            turn = 1 + max(round_of_lane.get(lane, 0) for lane in lanes)
            round_of_lane.update(dict.fromkeys(lanes, turn))  # this keeps the order within each lane
            rounds.append((turn, position, item))
        chosen: list[BufferedPush] = []
        estimates = 0
        for _, _, item in sorted(rounds, key=lambda entry: entry[:2]):
            if estimates >= batch:
                break
            chosen.append(item)
            estimates += len(item.estimates)
        return chosen

    def take(self, chosen: Collection[BufferedPush]) -> None:
        """Remove pushes from the buffer."""
        gone = set(chosen)
        self._of_lane -= Counter(
            estimate.lane for item in self._items if item in gone for estimate in item.estimates
        )
        self._items = [item for item in self._items if item not in gone]

    def drop(self, doomed: Callable[[BufferedPush], bool]) -> list[BufferedPush]:
        """Remove and return the pushes for which `doomed` returns True."""
        dropped = [item for item in self._items if doomed(item)]
        self.take(dropped)
        return dropped
