"""Lanes as the learner sees them: who leases which, how far each is, and from where it could be restored."""

import dataclasses
import enum
from collections import deque
from collections.abc import Iterator
from typing import Final

from learner.storage.snapshots import SnapshotRef
from protos.rpc.liveness import COMPUTE_TIMES

_TERM_SHIFT: Final = 32


class LaneState(enum.StrEnum):
    """Where a lane is in its lease."""

    FREE = "free"
    GRANTED = "granted"
    REVOKING = "revoking"
    """Still leased; its worker was asked to give it back."""
    QUARANTINED = "quarantined"
    """Not leased until a person has looked: its estimates fail."""


@dataclasses.dataclass
class Lane:
    """One lane's record.

    Attributes:
        number: its index in the run.
        fencing_token: counts leases; a message about the lane counts only if it names the current one.
        accepted: the last estimate taken in.
        applied: the last estimate that theta contains. This is what a checkpoint keeps.
        returned: the last estimate behind a state that came back, which need not have been accepted.
        state: of its lease.
        holder: id of the worker that leases it, or None.
        snapshots: by seq, those on disk.
        inner_step: mean inner step of its tasks at the last estimate.
        loss: mean loss of the last estimate, or None before it.
        compute_times_s: of its latest estimates, by any worker.
        problem: why it is in quarantine: the traceback that it ended with; else empty.
        nonfinite_in_a_row: its latest estimates that were not finite.
        was_reset: whether this learner process restarted its unrolls, so that states of it in workers'
            memories are of no use.
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
        """The estimate after which a new holder continues."""
        return max(self.accepted, self.returned)

    @property
    def leases(self) -> int:
        """How often it was leased by this learner process."""
        return self.fencing_token & ((1 << _TERM_SHIFT) - 1)

    def reset(self) -> None:
        """Forget its unroll states. Seqs continue after theirs, so that none comes twice."""
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
    """Return the term of the learner process that gave a lease."""
    return fencing_token >> _TERM_SHIFT


class LaneTable:
    """All lanes of a run. Fencing tokens begin at `term << 32`: those of two learner processes never meet."""

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
        """Return the lanes that a worker leases, those being revoked included."""
        return [lane for lane in self._lanes if lane.holder == holder]

    def leased(self, holder: str, number: int, fencing_token: int) -> Lane | None:
        """Return the lane if `holder` leases it under this fencing token, else None."""
        if number >= len(self._lanes):
            return None
        lane = self._lanes[number]
        return lane if lane.holder == holder and lane.fencing_token == fencing_token else None

    def grant(self, lane: Lane, holder: str) -> None:
        """Lease a free lane, under a new fencing token."""
        lane.fencing_token += 1
        lane.state, lane.holder = LaneState.GRANTED, holder

    def release(self, lane: Lane) -> None:
        """End a lease; its fencing token is no longer valid."""
        lane.state, lane.holder = LaneState.FREE, None

    def quarantine(self, lane: Lane, problem: str) -> None:
        """End a lane's lease, and do not lease it again."""
        lane.state, lane.holder, lane.problem = LaneState.QUARANTINED, None, problem

    def lift_quarantine(self, lane: Lane) -> None:
        """Let a lane be leased again, if it was not."""
        if lane.state is LaneState.QUARANTINED:
            lane.state, lane.problem = LaneState.FREE, ""

    def oldest_restart(self) -> int:
        """Return the oldest theta that a replay of some lane could need.

        A lane may be ahead of theta, and its newest snapshot with it; a checkpoint of theta as it is now
        would restart the lane from an older one.
        """
        return min(_restart(lane) for lane in self._lanes)


def _restart(lane: Lane) -> int:
    snapshot = lane.newest_snapshot(lane.applied)
    return snapshot.seq if snapshot else 0
