"""Gradients that have arrived and are not yet in theta: a bounded queue that no lane can crowd out."""

import dataclasses
import functools
import math
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any, NamedTuple

from numpy.typing import NDArray

from protos.unspool.v1.learner_pb2 import GradientEstimatorOut, Part


class Estimate(NamedTuple):
    """Names an estimate.

    Attributes:
        lane: whose it is.
        seq: which of the lane's.
        theta_version: the theta it was made with.
    """

    lane: int
    seq: int
    theta_version: int


@dataclasses.dataclass(frozen=True, eq=False)
class BufferedPush:
    """One accepted push: an estimate, or the weighted mean of several, which cannot be taken apart.

    Attributes:
        lane: whose estimate it is; of several, the first's, as `seq`.
        seq: which of the lane's.
        theta_version: the theta it was made with; of several, the oldest.
        worker_id: who sent it.
        push_id: the sender's name for it.
        weight: in the mean; 0 counts as an arrival and changes nothing.
        mean_loss: of the unroll.
        grad: theta's leaves in canonical order, or None where it was not finite.
        inner_steps: inner training steps it cost.
        arrived_s: on the learner's clock.
        merged: the estimates that it is the mean of; empty for one alone.
        diverged_tasks: tasks whose loss was not finite.
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
    merged: tuple[Estimate, ...] = ()
    diverged_tasks: int = 0

    @classmethod
    def of(
        cls, push: GradientEstimatorOut, parts: Sequence[Part], worker_id: str, arrived_s: float
    ) -> "BufferedPush":
        """Return a push as it is buffered, its gradient left out.

        Of several parts, weight and loss are computed from the parts, so that they agree with what is
        recorded of each; it is as old as its oldest part.
        """
        weight, mean_loss = push.weight, push.mean_loss
        if push.parts:
            weight = math.fsum(part.weight for part in parts)
            losses = math.fsum(part.weight * part.mean_loss for part in parts if part.weight)
            mean_loss = losses / weight if weight else 0.0
        return cls(
            lane=parts[0].lane,
            seq=parts[0].seq,
            theta_version=min(part.theta_version for part in parts),
            worker_id=worker_id,
            push_id=push.push_id,
            weight=weight,
            mean_loss=mean_loss,
            grad=None,
            inner_steps=sum(part.unroll_info.inner_steps for part in parts),
            arrived_s=arrived_s,
            merged=tuple(Estimate(part.lane, part.seq, part.theta_version) for part in push.parts),
            diverged_tasks=sum(part.unroll_info.diverged_tasks for part in parts),
        )

    @functools.cached_property
    def estimates(self) -> tuple[Estimate, ...]:
        """The estimates in it, at least one."""
        return self.merged or (Estimate(self.lane, self.seq, self.theta_version),)

    def weighed(self, factor: float) -> "BufferedPush":
        """Return it with `factor` times its weight."""
        return dataclasses.replace(self, weight=factor * self.weight)


class GradientBuffer:
    """BufferedPushs in order of arrival. Its length and its capacity count estimates."""

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
        """Whether nothing more is taken in."""
        return len(self) >= self._capacity

    def add(self, push: BufferedPush) -> None:
        """Append a push.

        Raises:
            OverflowError: the buffer is full; callers ask before.
        """
        if self.full:
            raise OverflowError(f"GradientBuffer(capacity={self._capacity}): full")
        self._items.append(push)
        self._of_lane.update(estimate.lane for estimate in push.estimates)

    def count(self, lanes: Collection[int]) -> int:
        """Return how many estimates of these lanes wait."""
        return sum(self._of_lane[lane] for lane in lanes)

    def lanes(self) -> set[int]:
        """Return the lanes that have an estimate here."""
        return set(self._of_lane)

    def fair(self, batch: int) -> list[BufferedPush]:
        """Return pushs that hold `batch` estimates, or all, a lane's second after every lane's first.

        Oldest first. They hold more than `batch` where the last one is the mean of several.
        """
        round_of_lane: dict[int, int] = {}
        rounds = []
        for position, item in enumerate(self._items):
            lanes = [lane for lane, _, _ in item.estimates]
            turn = 1 + max(round_of_lane.get(lane, 0) for lane in lanes)
            round_of_lane.update(dict.fromkeys(lanes, turn))  # a lane's estimates keep their order
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
        """Remove pushs."""
        gone = set(chosen)
        self._of_lane -= Counter(
            estimate.lane for item in self._items if item in gone for estimate in item.estimates
        )
        self._items = [item for item in self._items if item not in gone]

    def drop(self, doomed: Callable[[BufferedPush], bool]) -> list[BufferedPush]:
        """Remove and return the pushs for which `doomed` holds."""
        dropped = [item for item in self._items if doomed(item)]
        self.take(dropped)
        return dropped
