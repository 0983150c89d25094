"""The learner's record of the lanes: leases, progress, and the snapshots that they can be restored from."""

import dataclasses
import enum
from collections import deque
from collections.abc import Iterator
from typing import Final

from learner.storage.snapshots import SnapshotRef
from protos.rpc.liveness import COMPUTE_TIMES

_TERM_SHIFT: Final = 32  # fencing token: term in the high bits, number of leases in the low 32 bits


class LaneState(enum.StrEnum):
    """The state of a lane's lease."""

    FREE = "free"
    GRANTED = "granted"
    REVOKING = "revoking"
    """Still leased; its worker was asked to return it."""
    QUARANTINED = "quarantined"
    """Not leased, because its estimates fail; an admin must look at it."""


@dataclasses.dataclass
class Lane:
    """The record of one lane.

    Attributes:
        number: its index in the run.
        fencing_token: incremented by each lease; messages with an older token are ignored.
        accepted: the seq of the last accepted estimate.
        applied: the seq of the last estimate that theta contains; saved in checkpoints.
        returned: the seq of the last returned state, whose estimates need not have been accepted.
        state: the state of its lease.
        holder: the id of the session that leases it, or None.
        snapshots: the snapshots on disk, by seq.
        inner_step: the mean inner step of its tasks at the last estimate.
        loss: the mean loss of the last estimate, or None before the first.
        compute_times_s: the compute times of its latest estimates, by any worker.
        problem: the traceback that caused its quarantine; empty otherwise.
        nonfinite_in_a_row: the number of consecutive non-finite estimates up to the last.
        was_reset: whether this learner process restarted its unrolls, which invalidates its states in
            workers' memories.
    """

    number: int
    fencing_token: int
    accepted: int = 0
    applied: int = 0
    returned: int = 0
    state: LaneState = LaneState.FREE
    holder: str | None = None
    snapshots: dict[int, SnapshotRef] = dataclasses.field(default_factory=dict)
    inner_step: float = 0.0
    loss: float | None = None
    compute_times_s: deque[float] = dataclasses.field(default_factory=lambda: deque(maxlen=COMPUTE_TIMES))
    problem: str = ""
    nonfinite_in_a_row: int = 0
    was_reset: bool = False

    @property
    def reached(self) -> int:
        """The seq from which a new holder continues."""
        return max(self.accepted, self.returned)

    @property
    def leases(self) -> int:
        """The number of leases granted by this learner process."""
        return self.fencing_token & ((1 << _TERM_SHIFT) - 1)

    def reset(self) -> None:
        """Discard its unroll states. Seqs continue after those of the states, so none is used twice."""
        self.returned = max((self.reached, *self.snapshots))
        self.snapshots.clear()
        self.nonfinite_in_a_row = 0
        self.was_reset = True

    def newest_snapshot(self, at_most: int) -> SnapshotRef | None:
        """Return the newest snapshot that is not ahead of estimate `at_most`, or None."""
        return max(
            (ref for seq, ref in self.snapshots.items() if seq <= at_most),
            key=lambda ref: ref.seq,
            default=None,
        )


def term_of(fencing_token: int) -> int:
    """Return the term of the learner process that granted a lease."""
    return fencing_token >> _TERM_SHIFT


class LaneTable:
    """All lanes of a run. Fencing tokens start at `term << 32`, so two learner processes share none."""

    def __init__(self, count: int, term: int) -> None:
        self._lanes = [Lane(number, fencing_token=term << _TERM_SHIFT) for number in range(count)]

    def __len__(self) -> int:
        return len(self._lanes)

    def __iter__(self) -> Iterator[Lane]:
        return iter(self._lanes)

    def __getitem__(self, number: int) -> Lane:
        return self._lanes[number]

    def free(self) -> list[Lane]:
        """Return the lanes that no worker leases."""
        return [lane for lane in self._lanes if lane.state is LaneState.FREE]

    def quarantined(self) -> list[Lane]:
        """Return the lanes in quarantine."""
        return [lane for lane in self._lanes if lane.state is LaneState.QUARANTINED]

    def held_by(self, holder: str) -> list[Lane]:
        """Return the lanes that a worker leases, including those being revoked."""
        return [lane for lane in self._lanes if lane.holder == holder]

    def leased(self, holder: str, number: int, fencing_token: int) -> Lane | None:
        """Return the lane if `holder` leases it under this fencing token, else None."""
        if number >= len(self._lanes):
            return None
        lane = self._lanes[number]
        return lane if lane.holder == holder and lane.fencing_token == fencing_token else None

    def grant(self, lane: Lane, holder: str) -> None:
        """Lease a free lane with a new fencing token."""
        lane.fencing_token += 1
        lane.state, lane.holder = LaneState.GRANTED, holder

    def release(self, lane: Lane) -> None:
        """End a lease and invalidate its fencing token."""
        lane.state, lane.holder = LaneState.FREE, None

    def quarantine(self, lane: Lane, problem: str) -> None:
        """End a lane's lease and quarantine the lane."""
        lane.state, lane.holder, lane.problem = LaneState.QUARANTINED, None, problem

    def lift_quarantine(self, lane: Lane) -> None:
        """Free a lane if it is in quarantine."""
        if lane.state is LaneState.QUARANTINED:
            lane.state, lane.problem = LaneState.FREE, ""

    def oldest_restart(self) -> int:
        """Return the oldest outer step whose theta a replay of some lane could need.

        A lane and its newest snapshot may be ahead of theta. A restart from a checkpoint of the current theta
        would then continue the lane from an older snapshot.
        """
        snapshots = [lane.newest_snapshot(lane.applied) for lane in self._lanes]
        return min(snapshot.seq if snapshot else 0 for snapshot in snapshots)
