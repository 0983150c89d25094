"""When theta moves and by which gradients: the rule of each mode, as functions of what has arrived.

`sync` makes theta a function of the experiment alone; `async` never waits for a slow lane; `quorum` waits for
it, but not for ever.
"""

import abc
import dataclasses
import math
from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

from learner.buffer import Contribution, GradientBuffer
from learner.settings import LearnerSettings
from protos.unspool.v1 import learner_pb2

Batch: TypeAlias = Sequence[Contribution | None]
"""What one update is made of; always as long as the run's batch. None stands for a lane that is missing."""


class Objection(NamedTuple):
    """Why a push is not taken: the verdict, and what to tell its sender."""

    verdict: learner_pb2.Verdict
    detail: str


class Aggregation(abc.ABC):
    """The rule of a mode."""

    @property
    @abc.abstractmethod
    def exact_versions(self) -> bool:
        """Whether estimate `seq` of every lane is made with theta version `seq - 1` and no other."""

    @abc.abstractmethod
    def objection(self, seq: int, theta_version: int, version: int) -> Objection | None:
        """Say why a push made with `theta_version` is of no use while theta is at `version`, or None."""

    @abc.abstractmethod
    def expired(self, contribution: Contribution, version: int) -> bool:
        """Whether a contribution has become too old while it waited."""

    @abc.abstractmethod
    def select(self, buffer: GradientBuffer, now_s: float) -> Batch | None:
        """Return the next update's batch without taking it, or None while it is incomplete."""

    @abc.abstractmethod
    def shortfall(self, buffer: GradientBuffer) -> str:
        """Say what `select` still waits for, as in "2 of 4 lanes"; empty if for nothing but time."""


def aggregation_of(settings: LearnerSettings) -> Aggregation:
    """Return the rule that the settings ask for."""
    lanes = settings.experiment.lanes
    match settings.mode:
        case "sync":
            return Sync(lanes)
        case "async":
            return Async(settings.batch, settings.max_staleness)
        case "quorum":
            grace_s = settings.grace_s or 0.0
            return Quorum(lanes, math.ceil(settings.quorum * lanes), grace_s, settings.max_staleness)


@dataclasses.dataclass(frozen=True)
class Sync(Aggregation):
    """A barrier: estimate `version + 1` of every lane, in lane order."""

    lanes: int

    @property
    def exact_versions(self) -> bool:
        return True

    def objection(self, seq: int, theta_version: int, version: int) -> Objection | None:
        if theta_version > version or seq > version + 1:
            return Objection(learner_pb2.FUTURE, f"seq {seq} of theta {theta_version}; theta is at {version}")
        if theta_version != version or seq != version + 1:
            return Objection(learner_pb2.STALE, f"seq {seq} of theta {theta_version}; theta is at {version}")
        return None

    def expired(self, contribution: Contribution, version: int) -> bool:
        return contribution.theta_version != version

    def select(self, buffer: GradientBuffer, now_s: float) -> Batch | None:
        if len(buffer) < self.lanes:
            return None
        in_order: list[Contribution] = sorted(buffer, key=lambda item: item.lane)
        return in_order

    def shortfall(self, buffer: GradientBuffer) -> str:
        missing = self.lanes - len(buffer)
        return f"{missing} of {self.lanes} lanes" if missing else ""


@dataclasses.dataclass(frozen=True)
class Async(Aggregation):
    """Any `batch` gradients of thetas not more than `max_staleness` versions behind."""

    batch: int
    max_staleness: int

    @property
    def exact_versions(self) -> bool:
        return False

    def objection(self, seq: int, theta_version: int, version: int) -> Objection | None:
        return _outside_window(theta_version, version, self.max_staleness)

    def expired(self, contribution: Contribution, version: int) -> bool:
        return version - contribution.theta_version > self.max_staleness

    def select(self, buffer: GradientBuffer, now_s: float) -> Batch | None:
        return buffer.fair(self.batch) if len(buffer) >= self.batch else None

    def shortfall(self, buffer: GradientBuffer) -> str:
        missing = self.batch - len(buffer)
        return f"{missing} of {self.batch} gradients" if missing > 0 else ""


@dataclasses.dataclass(frozen=True)
class Quorum(Aggregation):
    """One gradient of each of at least `needed` lanes, and `grace_s` for the others once those are there.

    What comes too late is carried into the next update, as stale by one version.
    """

    lanes: int
    needed: int
    grace_s: float
    max_staleness: int

    @property
    def exact_versions(self) -> bool:
        return False

    def objection(self, seq: int, theta_version: int, version: int) -> Objection | None:
        return _outside_window(theta_version, version, self.max_staleness)

    def expired(self, contribution: Contribution, version: int) -> bool:
        return version - contribution.theta_version > self.max_staleness

    def select(self, buffer: GradientBuffer, now_s: float) -> Batch | None:
        oldest = self._oldest_of_each_lane(buffer)
        arrivals = sorted(item.arrived_s for item in oldest.values())
        if len(arrivals) < self.needed:
            return None
        if len(arrivals) < self.lanes and now_s < arrivals[self.needed - 1] + self.grace_s:
            return None
        return [oldest.get(lane) for lane in range(self.lanes)]

    def shortfall(self, buffer: GradientBuffer) -> str:
        missing = self.needed - len(buffer.lanes())
        return f"{missing} of {self.needed} lanes" if missing > 0 else ""

    def _oldest_of_each_lane(self, buffer: GradientBuffer) -> dict[int, Contribution]:
        oldest: dict[int, Contribution] = {}
        for item in buffer:
            oldest.setdefault(item.lane, item)
        return oldest


def _outside_window(theta_version: int, version: int, max_staleness: int) -> Objection | None:
    if theta_version > version:
        return Objection(learner_pb2.FUTURE, f"made with theta {theta_version}; theta is at {version}")
    if version - theta_version > max_staleness:
        detail = f"made with theta {theta_version}; theta is at {version} and the window is {max_staleness}"
        return Objection(learner_pb2.STALE, detail)
    return None
