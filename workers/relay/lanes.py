"""The lanes leased to a relay, and the worker that holds each."""

import dataclasses
from collections.abc import Iterator, Sequence

from protos.unspool.v1 import learner_pb2
from workers.relay.sessions import RelayedWorker


@dataclasses.dataclass
class RelayedLane:
    """One lane that the learner has leased to the relay.

    Attributes:
        grant: the learner's grant; its fencing token fences the lease on both sides of the relay.
        since_s: when the grant arrived, in seconds of the relay's clock.
        session_id: session of the worker that holds the lane, or None while it waits for a worker.
        seq: seq of the newest estimate received.
        is_revoking: whether the lane was revoked from its worker.
    """

    grant: learner_pb2.LaneGrant
    since_s: float
    session_id: str | None = None
    seq: int = 0
    is_revoking: bool = False

    def held(self) -> learner_pb2.HeldLane:
        """Return the lane's entry in heartbeats and Joins."""
        return learner_pb2.HeldLane(
            lane=self.grant.lane, fencing_token=self.grant.fencing_token, seq=max(self.seq, self.grant.seq)
        )

    def revocation(self, reason: str) -> learner_pb2.LearnerMessage:
        """Return the message that revokes the lane from its worker."""
        return learner_pb2.LearnerMessage(
            revocation=learner_pb2.LaneRevocation(
                lane=self.grant.lane, fencing_token=self.grant.fencing_token, reason=reason
            )
        )


class RelayedLanes:
    """Every lane that is leased to the relay."""

    def __init__(self) -> None:
        self._lanes: dict[int, RelayedLane] = {}

    def __len__(self) -> int:
        return len(self._lanes)

    def __iter__(self) -> Iterator[RelayedLane]:
        return iter(list(self._lanes.values()))

    def put(self, lane: RelayedLane) -> None:
        """Add a lane, replacing any earlier lease of it."""
        self._lanes[lane.grant.lane] = lane

    def drop(self, lane: RelayedLane) -> None:
        """Remove a lane, unless a newer lease has replaced it."""
        if self._lanes.get(lane.grant.lane) is lane:
            del self._lanes[lane.grant.lane]

    def clear(self) -> None:
        """Remove every lane."""
        self._lanes.clear()

    def under(self, number: int, fencing_token: int) -> RelayedLane | None:
        """Return the lane if this lease of it is current, else None (lease fencing)."""
        lane = self._lanes.get(number)
        return lane if lane is not None and lane.grant.fencing_token == fencing_token else None

    def leased(self, session_id: str, number: int, fencing_token: int) -> RelayedLane | None:
        """Return the lane if this worker holds it under this lease, else None."""
        lane = self.under(number, fencing_token)
        return lane if lane is not None and lane.session_id == session_id else None

    def of(self, session_id: str | None) -> list[RelayedLane]:
        """Return the lanes of a worker, or with None those that wait for one."""
        return [lane for lane in self if lane.session_id == session_id]

    def load(self, worker: RelayedWorker) -> float:
        """Return a worker's load: its unrevoked lanes per worker process (a relay counts as several)."""
        kept = sum(not lane.is_revoking for lane in self.of(worker.session_id))
        return kept / worker.size

    def best(self, lane: RelayedLane, workers: Sequence[RelayedWorker]) -> RelayedWorker:
        """Return the worker to give a lane to: one that still holds the lane's state, else the least loaded.

        Keeping a state is not worth a load that exceeds the least one by a lane or more.
        """
        least = min(workers, key=self.load)
        for worker in workers:
            held = worker.held.get(lane.grant.lane)
            has_state = held is not None and held.seq == lane.grant.seq and not lane.grant.discard_held
            if has_state and self.load(worker) < self.load(least) + 1:
                return worker
        return least

    def surplus(self, workers: Sequence[RelayedWorker]) -> RelayedLane | None:
        """Return a lane to revoke so that loads differ by less than two lanes, else None.

        Revokes one lane at a time: None while any lane is being revoked or waits for a worker.
        """
        if len(workers) < 2 or any(lane.is_revoking or lane.session_id is None for lane in self):
            return None
        most, least = max(workers, key=self.load), min(workers, key=self.load)
        if self.load(most) - self.load(least) < 2:
            return None
        return max(self.of(most.session_id), key=lambda lane: (lane.seq, lane.grant.lane))
