"""Aggregation: for each mode, when an update is due and which gradients it contains.

With `sync`, theta is a function of the experiment alone; `async` never waits for a slow lane; `quorum` waits
for slow lanes for a limited time.
"""

import abc
import dataclasses
import math
from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple, TypeAlias

from learner.state.arrivals import ArrivalTimes
from learner.state.buffer import BufferedPush, GradientBuffer
from learner.state.lanes import Lane
from learner.tables import AggregationTable
from protos.unspool.v1 import learner_pb2

Batch: TypeAlias = Sequence[BufferedPush | None]
"""The pushes of one update, always as many as the run's batch size; None stands for a missing gradient."""


class Rejection(NamedTuple):
    """Why a push is rejected: the verdict and a text for the worker."""

    verdict: learner_pb2.Verdict
    detail: str


@dataclasses.dataclass(frozen=True)
class Aggregation(abc.ABC):
    """The aggregation rule of a mode, with the keys of the configuration's table."""

    table: AggregationTable

    @property
    @abc.abstractmethod
    def exact_steps(self) -> bool:
        """Whether estimate `seq` of every lane must be computed at theta `seq - 1`."""

    @abc.abstractmethod
    def reject(self, seq: int, made_at: int, outer_step: int) -> Rejection | None:
        """Return why an estimate at `made_at` is rejected at `outer_step`, or None."""

    @abc.abstractmethod
    def due_in_s(self, buffer: GradientBuffer, outer_step: int, now_s: float) -> float | None:
        """Return in how many seconds the next update is due: 0 is now, None if more pushes must arrive."""

    @abc.abstractmethod
    def select(self, buffer: GradientBuffer) -> Batch:
        """Return the batch of an update that is due, without removing it from the buffer."""

    @abc.abstractmethod
    def shortfall(self, buffer: GradientBuffer, outer_step: int, now_s: float) -> str:
        """Return what the next update still waits for, such as "2 of 4 lanes"; empty if nothing."""

    def expired(self, push: BufferedPush, outer_step: int) -> bool:
        """Return whether a buffered push has become too stale."""
        return self.reject(push.seq, push.outer_step, outer_step) is not None

    def weighed(self, batch: Batch, outer_step: int) -> Batch:
        """Return a selected batch with the weights of its gradients in the update of `outer_step`.

        With `inverse`, the weight of a gradient s outer steps behind is multiplied by 1 / (1 + s).
        """
        if self.table.staleness_weighting == "none":
            return batch
        return [item and item.weighed(1.0 / (1 + outer_step - item.outer_step)) for item in batch]


def aggregation_of(
    table: AggregationTable, arrivals: ArrivalTimes, absent: Callable[[], Collection[Lane]] = frozenset
) -> Aggregation:
    """Return the aggregation rule that the table selects; `Quorum` describes the other arguments."""
    match table.mode:
        case "sync":
            return Sync(table)
        case "async":
            return Async(table)
        case "quorum":
            return Quorum(table, arrivals, absent)


class Sync(Aggregation):
    """A barrier: estimate `outer_step + 1` of every lane, in lane order."""

    @property
    def exact_steps(self) -> bool:
        return True

    def reject(self, seq: int, made_at: int, outer_step: int) -> Rejection | None:
        if (made_at, seq) == (outer_step, outer_step + 1):
            return None
        is_ahead = made_at > outer_step or seq > outer_step + 1
        verdict = learner_pb2.FUTURE if is_ahead else learner_pb2.STALE
        return Rejection(verdict, f"seq {seq} of theta {made_at}; theta is at {outer_step}")

    def due_in_s(self, buffer: GradientBuffer, outer_step: int, now_s: float) -> float | None:
        return 0.0 if len(buffer) >= self.table.lanes else None

    def select(self, buffer: GradientBuffer) -> Batch:
        in_order: list[BufferedPush] = sorted(buffer, key=lambda item: item.lane)
        return in_order

    def shortfall(self, buffer: GradientBuffer, outer_step: int, now_s: float) -> str:
        missing = self.table.lanes - len(buffer)
        return f"{missing} of {self.table.lanes} lanes" if missing else ""


class Windowed(Aggregation):
    """The common part of the modes that accept gradients of thetas a few outer steps behind."""

    @property
    def exact_steps(self) -> bool:
        return False

    def reject(self, seq: int, made_at: int, outer_step: int) -> Rejection | None:
        if made_at > outer_step:
            return Rejection(learner_pb2.FUTURE, f"made with theta {made_at}; theta is at {outer_step}")
        if outer_step - made_at > self.table.staleness_window:
            window = f"the window is {self.table.staleness_window}"
            detail = f"made with theta {made_at}; theta is at {outer_step} and {window}"
            return Rejection(learner_pb2.STALE, detail)
        return None


class Async(Windowed):
    """Any `batch` gradients within the window of staleness."""

    def due_in_s(self, buffer: GradientBuffer, outer_step: int, now_s: float) -> float | None:
        return 0.0 if len(buffer) >= self.table.batch_size else None

    def select(self, buffer: GradientBuffer) -> Batch:
        chosen = buffer.fair(self.table.batch_size)
        # Merged pushes hold several estimates each, so pad the batch to its constant length.
        return [*chosen, *[None] * (self.table.batch_size - len(chosen))]

    def shortfall(self, buffer: GradientBuffer, outer_step: int, now_s: float) -> str:
        missing = self.table.batch_size - len(buffer)
        return f"{missing} of {self.table.batch_size} gradients" if missing > 0 else ""


@dataclasses.dataclass(frozen=True)
class Quorum(Windowed):
    """One gradient of each lane of a quorum, and of other lanes that arrive within a grace period.

    Gradients that arrive later go into the next update, with a staleness of one outer step.

    Attributes:
        arrivals: the arrival times observed in earlier updates, which determine the grace period unless the
            table does.
        absent: returns the lanes that currently produce no estimates; no update waits for these.
    """

    arrivals: ArrivalTimes
    absent: Callable[[], Collection[Lane]] = frozenset

    def due_in_s(self, buffer: GradientBuffer, outer_step: int, now_s: float) -> float | None:
        arrived_s = sorted(item.arrived_s for item in _oldest_of_each_lane(buffer).values())
        needed = self._needed(buffer)
        if len(arrived_s) < needed:
            return None
        if len(arrived_s) >= self._expected(buffer):
            return 0.0
        complete_s, grace_s = arrived_s[needed - 1], self.table.grace_s
        if grace_s is None:
            grace_s = self.arrivals.grace_s(outer_step, complete_s)
        return max(0.0, complete_s + grace_s - now_s)

    def select(self, buffer: GradientBuffer) -> Batch:
        oldest = _oldest_of_each_lane(buffer)
        return [oldest.get(lane) for lane in range(self.table.lanes)]

    def shortfall(self, buffer: GradientBuffer, outer_step: int, now_s: float) -> str:
        here, needed = len(buffer.lanes()), self._needed(buffer)
        left_s = self.due_in_s(buffer, outer_step, now_s)
        if left_s is None:
            return f"{needed - here} of {needed} lanes"
        late = self._expected(buffer) - here
        return f"{late} of {self.table.lanes} lanes, for {left_s:.1f} s at most" if left_s else ""

    def _needed(self, buffer: GradientBuffer) -> int:
        needed = math.ceil(self.table.share_needed * self.table.lanes)
        return max(1, min(needed, self._expected(buffer)))

    def _expected(self, buffer: GradientBuffer) -> int:
        """Return the number of lanes that can contribute to the next update."""
        return self.table.lanes - len({lane.number for lane in self.absent()} - buffer.lanes())


def _oldest_of_each_lane(buffer: GradientBuffer) -> dict[int, BufferedPush]:
    oldest: dict[int, BufferedPush] = {}
    for item in buffer:
        oldest.setdefault(item.lane, item)
    return oldest
