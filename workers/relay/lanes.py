"""The lanes that the learner has leased to a relay: which of its workers has each."""

import dataclasses
from collections.abc import Iterator, Sequence

from protos.unspool.v1 import learner_pb2
from workers.relay.sessions import RelayedWorker


@dataclasses.dataclass
class RelayedLane:
    """One lane under the learner's lease.

    Attributes:
        grant: as the learner said it; its incarnation is the fence on both sides.
        since_s: when it came.
        worker_id: who has it, or None while it waits for somebody.
        seq: the newest estimate that was seen.
        is_revoking: whether it was asked back.
    """

    grant: learner_pb2.LaneGrant
    since_s: float
    worker_id: str | None = None
    seq: int = 0
    is_revoking: bool = False

    def held(self) -> learner_pb2.HeldLane:
        """Return the lane as heartbeats and Joins name it."""
        return learner_pb2.HeldLane(
            lane=self.grant.lane, incarnation=self.grant.incarnation, seq=max(self.seq, self.grant.seq)
        )

    def revocation(self, reason: str) -> learner_pb2.LearnerMessage:
        """Return the message that asks its worker to give it back."""
        return learner_pb2.LearnerMessage(
            revocation=learner_pb2.LaneRevocation(
                lane=self.grant.lane, incarnation=self.grant.incarnation, reason=reason
            )
        )


class RelayedLanes:
    """Every lane that the relay answers for."""

    def __init__(self) -> None:
        self._lanes: dict[int, RelayedLane] = {}

    def __len__(self) -> int:
        return len(self._lanes)

    def __iter__(self) -> Iterator[RelayedLane]:
        return iter(list(self._lanes.values()))

    def put(self, lane: RelayedLane) -> None:
        """Take a lane in, in the place of an earlier lease of it."""
        self._lanes[lane.grant.lane] = lane

    def drop(self, lane: RelayedLane) -> None:
        """Answer for a lane no longer."""
        if self._lanes.get(lane.grant.lane) is lane:
            del self._lanes[lane.grant.lane]

    def clear(self) -> None:
        """Answer for nothing."""
        self._lanes.clear()

    def under(self, number: int, incarnation: int) -> RelayedLane | None:
        """Return the lane under this very lease, else None: the fence."""
        lane = self._lanes.get(number)
        return lane if lane is not None and lane.grant.incarnation == incarnation else None

    def leased(self, worker_id: str, number: int, incarnation: int) -> RelayedLane | None:
        """Return the lane if this worker has it under this very lease."""
        lane = self.under(number, incarnation)
        return lane if lane is not None and lane.worker_id == worker_id else None

    def of(self, worker_id: str | None) -> list[RelayedLane]:
        """Return the lanes of a worker, or those that wait for one."""
        return [lane for lane in self if lane.worker_id == worker_id]

    def load(self, worker: RelayedWorker) -> float:
        """Return the lanes of a worker that it keeps, for each process that it stands for."""
        kept = sum(not lane.is_revoking for lane in self.of(worker.worker_id))
        return kept / worker.size

    def best(self, lane: RelayedLane, workers: Sequence[RelayedWorker]) -> RelayedWorker:
        """Return who should have a lane: a worker that still has its state, else the least loaded.

        Having the state does not justify a load that is uneven by more than one lane.
        """
        least = min(workers, key=self.load)
        for worker in workers:
            has_state = worker.held.get(lane.grant.lane) == lane.grant.seq and not lane.grant.discard_held
            if has_state and self.load(worker) < self.load(least) + 1:
                return worker
        return least

    def surplus(self, workers: Sequence[RelayedWorker]) -> RelayedLane | None:
        """Return a lane to ask back, so that loads differ by less than two lanes; one at a time."""
        if len(workers) < 2 or any(lane.is_revoking or lane.worker_id is None for lane in self):
            return None
        most, least = max(workers, key=self.load), min(workers, key=self.load)
        if self.load(most) - self.load(least) < 2:
            return None
        return max(self.of(most.worker_id), key=lambda lane: (lane.seq, lane.grant.lane))
