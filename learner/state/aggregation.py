"""When theta moves and by which gradients: the rule of each mode, as functions of what has arrived.

`sync` makes theta a function of the experiment alone; `async` never waits for a slow lane; `quorum` waits for
it for a limited time.
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
"""What one update is made of; always as long as the run's batch. None stands for a lane that is missing."""


class Rejection(NamedTuple):
    """Why a push is not taken: the verdict, and what to tell its sender."""

    verdict: learner_pb2.Verdict
    detail: str


class Aggregation(abc.ABC):
    """The rule of a mode."""

    @property
    @abc.abstractmethod
    def exact_versions(self) -> bool:
        """Whether estimate `seq` of every lane is made with theta `seq - 1` and no other."""

    @abc.abstractmethod
    def reject(self, seq: int, theta_version: int, outer_step: int) -> Rejection | None:
        """Return why a push made with `theta_version` is not taken at `outer_step`, or None."""

    @abc.abstractmethod
    def expired(self, push: BufferedPush, outer_step: int) -> bool:
        """Whether a contribution has become too old while it waited."""

    @abc.abstractmethod
    def due_in_s(self, buffer: GradientBuffer, outer_step: int, now_s: float) -> float | None:
        """Return how long until an update is made of what is here: 0 is now, None: more must arrive."""

    @abc.abstractmethod
    def select(self, buffer: GradientBuffer) -> Batch:
        """Return the batch of an update that is due, without taking it."""

    @abc.abstractmethod
    def weighed(self, batch: Batch, outer_step: int) -> Batch:
        """Return a selected batch with the weights that its gradients have in the update of `outer_step`."""

    @abc.abstractmethod
    def shortfall(self, buffer: GradientBuffer, outer_step: int, now_s: float) -> str:
        """Say what the next update still waits for, as in "2 of 4 lanes"; empty if for nothing."""


def aggregation_of(
    settings: LearnerSettings,
    arrivals: ArrivalTimes,
    absent: Callable[[], Collection[int]] = frozenset,
) -> Aggregation:
    """Return the rule that the settings ask for.

    Args:
        settings: of the learner.
        arrivals: what the run observes, by which the rule may go.
        absent: returns the lanes that nothing comes from for now.
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
    def exact_versions(self) -> bool:
        return True

    def reject(self, seq: int, theta_version: int, outer_step: int) -> Rejection | None:
        if (theta_version, seq) == (outer_step, outer_step + 1):
            return None
        is_ahead = theta_version > outer_step or seq > outer_step + 1
        verdict = learner_pb2.FUTURE if is_ahead else learner_pb2.STALE
        return Rejection(verdict, f"seq {seq} of theta {theta_version}; theta is at {outer_step}")

    def expired(self, push: BufferedPush, outer_step: int) -> bool:
        return push.theta_version != outer_step

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
    """What the modes have in common that take gradients of thetas a few versions behind.

    Attributes:
        max_staleness: versions that a gradient may be behind.
        staleness_weighting: `inverse` weighs one that is s versions behind by 1 / (1 + s).
    """

    max_staleness: int
    staleness_weighting: Literal["none", "inverse"] = "none"

    @property
    def exact_versions(self) -> bool:
        return False

    def reject(self, seq: int, theta_version: int, outer_step: int) -> Rejection | None:
        if theta_version > outer_step:
            return Rejection(learner_pb2.FUTURE, f"made with theta {theta_version}; theta is at {outer_step}")
        if outer_step - theta_version > self.max_staleness:
            window = f"the window is {self.max_staleness}"
            detail = f"made with theta {theta_version}; theta is at {outer_step} and {window}"
            return Rejection(learner_pb2.STALE, detail)
        return None

    def expired(self, push: BufferedPush, outer_step: int) -> bool:
        return outer_step - push.theta_version > self.max_staleness

    def weighed(self, batch: Batch, outer_step: int) -> Batch:
        if self.staleness_weighting == "none":
            return batch
        return [item and item.weighed(1.0 / (1 + outer_step - item.theta_version)) for item in batch]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Async(Windowed):
    """Any `batch` gradients of thetas not more than `max_staleness` versions behind."""

    batch: int

    def due_in_s(self, buffer: GradientBuffer, outer_step: int, now_s: float) -> float | None:
        return 0.0 if len(buffer) >= self.batch else None

    def select(self, buffer: GradientBuffer) -> Batch:
        chosen = buffer.fair(self.batch)
        return [*chosen, *[None] * (self.batch - len(chosen))]  # merged ones are fewer than their estimates

    def shortfall(self, buffer: GradientBuffer, outer_step: int, now_s: float) -> str:
        missing = self.batch - len(buffer)
        return f"{missing} of {self.batch} gradients" if missing > 0 else ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Quorum(Windowed):
    """One gradient of each of at least `needed` lanes, and a grace for the others once those are there.

    What comes too late is carried into the next update, as stale by one outer_step.

    Attributes:
        lanes: of the run.
        needed: lanes that an update cannot do without.
        arrivals: what is observed of earlier updates.
        absent: returns the lanes that need not be waited for: nothing comes from them.
        grace_s: how long the others are waited for; None: as `arrivals` has it.
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
        """Return how many lanes can have a gradient in the next update."""
        return self.lanes - len(set(self.absent()) - buffer.lanes())


def _oldest_of_each_lane(buffer: GradientBuffer) -> dict[int, BufferedPush]:
    oldest: dict[int, BufferedPush] = {}
    for item in buffer:
        oldest.setdefault(item.lane, item)
    return oldest
