"""Aggregation: for each mode, when an update is due and which gradients it contains.

With `sync`, theta is a function of the experiment alone; `async` never waits for a slow lane; `quorum` waits
for slow lanes for a limited time.
"""

import abc
import dataclasses
import math
from collections.abc import Callable, Collection, Sequence
from typing import Literal, NamedTuple, TypeAlias

from learner.settings import LearnerSettings
from learner.state.arrivals import ArrivalTimes
from learner.state.buffer import BufferedPush, GradientBuffer
from protos.unspool.v1 import learner_pb2

Batch: TypeAlias = Sequence[BufferedPush | None]
"""The pushes of one update, always as many as the run's batch size; None stands for a missing gradient."""


class Rejection(NamedTuple):
    """Why a push is rejected: the verdict and a text for the worker."""

    verdict: learner_pb2.Verdict
    detail: str


class Aggregation(abc.ABC):
    """The aggregation rule of a mode."""

    @property
    @abc.abstractmethod
    def exact_steps(self) -> bool:
        """Whether estimate `seq` of every lane must be computed at theta `seq - 1`."""

    @abc.abstractmethod
    def reject(self, seq: int, made_at: int, outer_step: int) -> Rejection | None:
        """Return why an estimate at `made_at` is rejected at `outer_step`, or None."""

    @abc.abstractmethod
    def expired(self, push: BufferedPush, outer_step: int) -> bool:
        """Return whether a buffered push has become too stale."""

    @abc.abstractmethod
    def due_in_s(self, buffer: GradientBuffer, outer_step: int, now_s: float) -> float | None:
        """Return in how many seconds the next update is due: 0 is now, None if more pushes must arrive."""

    @abc.abstractmethod
    def select(self, buffer: GradientBuffer) -> Batch:
        """Return the batch of an update that is due, without removing it from the buffer."""

    @abc.abstractmethod
    def weighed(self, batch: Batch, outer_step: int) -> Batch:
        """Return a selected batch with the weights of its gradients in the update of `outer_step`."""

    @abc.abstractmethod
    def shortfall(self, buffer: GradientBuffer, outer_step: int, now_s: float) -> str:
        """Return what the next update still waits for, such as "2 of 4 lanes"; empty if nothing."""


def aggregation_of(
    settings: LearnerSettings,
    arrivals: ArrivalTimes,
    absent: Callable[[], Collection[int]] = frozenset,
) -> Aggregation:
    """Return the aggregation rule that the settings select.

    Args:
        settings: the learner's settings.
        arrivals: the observed arrival times, which determine the grace period of `quorum`.
        absent: returns the lanes that currently produce no estimates.
    """
    lanes = settings.experiment.lanes
    match settings.aggregation.mode:
        case "sync":
            return Sync(lanes)
        case "async":
            return Async(
                batch=settings.aggregation.batch_size,
                max_staleness=settings.aggregation.staleness_window,
                staleness_weighting=settings.aggregation.staleness_weighting,
            )
        case "quorum":
            return Quorum(
                lanes=lanes,
                needed=math.ceil(settings.aggregation.share_needed * lanes),
                grace_s=settings.aggregation.grace_s,
                arrivals=arrivals,
                absent=absent,
                max_staleness=settings.aggregation.staleness_window,
                staleness_weighting=settings.aggregation.staleness_weighting,
            )


@dataclasses.dataclass(frozen=True)
class Sync(Aggregation):
    """A barrier: estimate `outer_step + 1` of every lane, in lane order."""

    lanes: int

    @property
    def exact_steps(self) -> bool:
        return True

    def reject(self, seq: int, made_at: int, outer_step: int) -> Rejection | None:
        if (made_at, seq) == (outer_step, outer_step + 1):
            return None
        is_ahead = made_at > outer_step or seq > outer_step + 1
        verdict = learner_pb2.FUTURE if is_ahead else learner_pb2.STALE
        return Rejection(verdict, f"seq {seq} of theta {made_at}; theta is at {outer_step}")

    def expired(self, push: BufferedPush, outer_step: int) -> bool:
        return push.outer_step != outer_step

    def due_in_s(self, buffer: GradientBuffer, outer_step: int, now_s: float) -> float | None:
        return 0.0 if len(buffer) >= self.lanes else None

    def select(self, buffer: GradientBuffer) -> Batch:
        in_order: list[BufferedPush] = sorted(buffer, key=lambda item: item.lane)
        return in_order

    def weighed(self, batch: Batch, outer_step: int) -> Batch:
        return batch

    def shortfall(self, buffer: GradientBuffer, outer_step: int, now_s: float) -> str:
        missing = self.lanes - len(buffer)
        return f"{missing} of {self.lanes} lanes" if missing else ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Windowed(Aggregation):
    """The common part of the modes that accept gradients of thetas a few outer steps behind.

    Attributes:
        max_staleness: the maximum number of outer steps that a gradient may be behind.
        staleness_weighting: with `inverse`, the weight of a gradient s outer steps behind is multiplied by
            1 / (1 + s).
    """

    max_staleness: int
    staleness_weighting: Literal["none", "inverse"] = "none"

    @property
    def exact_steps(self) -> bool:
        return False

    def reject(self, seq: int, made_at: int, outer_step: int) -> Rejection | None:
        if made_at > outer_step:
            return Rejection(learner_pb2.FUTURE, f"made with theta {made_at}; theta is at {outer_step}")
        if outer_step - made_at > self.max_staleness:
            window = f"the window is {self.max_staleness}"
            detail = f"made with theta {made_at}; theta is at {outer_step} and {window}"
            return Rejection(learner_pb2.STALE, detail)
        return None

    def expired(self, push: BufferedPush, outer_step: int) -> bool:
        return outer_step - push.outer_step > self.max_staleness

    def weighed(self, batch: Batch, outer_step: int) -> Batch:
        if self.staleness_weighting == "none":
            return batch
        return [item and item.weighed(1.0 / (1 + outer_step - item.outer_step)) for item in batch]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Async(Windowed):
    """Any `batch` gradients that are at most `max_staleness` outer steps behind."""

    batch: int

    def due_in_s(self, buffer: GradientBuffer, outer_step: int, now_s: float) -> float | None:
        return 0.0 if len(buffer) >= self.batch else None

    def select(self, buffer: GradientBuffer) -> Batch:
        chosen = buffer.fair(self.batch)
        # Merged pushes hold several estimates each, so pad the batch to its constant length.
        return [*chosen, *[None] * (self.batch - len(chosen))]

    def shortfall(self, buffer: GradientBuffer, outer_step: int, now_s: float) -> str:
        missing = self.batch - len(buffer)
        return f"{missing} of {self.batch} gradients" if missing > 0 else ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Quorum(Windowed):
    """One gradient of each of at least `needed` lanes, and of others that arrive within a grace period.

    Gradients that arrive later go into the next update, with a staleness of one outer step.

    Attributes:
        lanes: the run's number of lanes.
        needed: the minimum number of lanes in an update.
        arrivals: the arrival times observed in earlier updates.
        absent: returns the lanes that currently produce no estimates; no update waits for these.
        grace_s: the grace period once `needed` lanes have arrived; None to derive it from `arrivals`.
    """

    lanes: int
    needed: int
    arrivals: ArrivalTimes = dataclasses.field(compare=False, repr=False)
    absent: Callable[[], Collection[int]] = dataclasses.field(default=frozenset, compare=False, repr=False)
    grace_s: float | None = None

    def due_in_s(self, buffer: GradientBuffer, outer_step: int, now_s: float) -> float | None:
        arrived_s = sorted(item.arrived_s for item in _oldest_of_each_lane(buffer).values())
        needed = self._needed(buffer)
        if len(arrived_s) < needed:
            return None
        if len(arrived_s) >= self._expected(buffer):
            return 0.0
        complete_s = arrived_s[needed - 1]
        grace_s = self.arrivals.grace_s(outer_step, complete_s) if self.grace_s is None else self.grace_s
        return max(0.0, complete_s + grace_s - now_s)

    def select(self, buffer: GradientBuffer) -> Batch:
        oldest = _oldest_of_each_lane(buffer)
        return [oldest.get(lane) for lane in range(self.lanes)]

    def shortfall(self, buffer: GradientBuffer, outer_step: int, now_s: float) -> str:
        here, needed = len(buffer.lanes()), self._needed(buffer)
        left_s = self.due_in_s(buffer, outer_step, now_s)
        if left_s is None:
            return f"{needed - here} of {needed} lanes"
        late = self._expected(buffer) - here
        return f"{late} of {self.lanes} lanes, for {left_s:.1f} s at most" if left_s else ""

    def _needed(self, buffer: GradientBuffer) -> int:
        return max(1, min(self.needed, self._expected(buffer)))

    def _expected(self, buffer: GradientBuffer) -> int:
        """Return the number of lanes that can contribute to the next update."""
        return self.lanes - len(set(self.absent()) - buffer.lanes())


def _oldest_of_each_lane(buffer: GradientBuffer) -> dict[int, BufferedPush]:
    oldest: dict[int, BufferedPush] = {}
    for item in buffer:
        oldest.setdefault(item.lane, item)
    return oldest
