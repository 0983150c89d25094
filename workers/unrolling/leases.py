"""The lanes that a worker holds, in round-robin order."""

from collections.abc import Callable, Iterator

from protos.unspool.v1 import learner_pb2
from workers.unrolling.lane import LaneUnroll


class HeldLeases:
    """The lanes in this process.

    A lane whose lease was lost is kept for a while, because a new grant may need its state.
    """

    def __init__(self) -> None:
        """Start without lanes."""
        self._lanes: dict[int, LaneUnroll] = {}
        self._last_served = -1

    def __iter__(self) -> Iterator[LaneUnroll]:
        """Return the leased lanes in round-robin order, starting after the lane served last."""
        leased = sorted(lane.number for lane in self._lanes.values() if lane.leased)
        later = [number for number in leased if number > self._last_served]
        for number in later + [number for number in leased if number <= self._last_served]:
            yield self._lanes[number]

    def held(self) -> tuple[learner_pb2.HeldLane, ...]:
        """Return every lane whose state is in this process, leased or not."""
        return tuple(lane.held() for lane in self._lanes.values())

    def put(self, lane: LaneUnroll) -> None:
        """Add `lane`, replacing any earlier state of it."""
        self._lanes[lane.number] = lane

    def serve(self, lane: LaneUnroll) -> None:
        """Store `lane` after work on it, and move it to the end of the round-robin order."""
        self.put(lane)
        self._last_served = lane.number

    def leased(self, number: int, fencing_token: int) -> LaneUnroll | None:
        """Return the lane if it is held under this lease, else None."""
        lane = self._lanes.get(number)
        return lane if lane is not None and lane.leased and lane.fencing_token == fencing_token else None

    def drop(self, number: int) -> None:
        """Remove a lane, if it is held."""
        self._lanes.pop(number, None)

    def reuse(self, grant: learner_pb2.LaneGrant, *, exact: bool) -> LaneUnroll | None:
        """Return the held state under the granted lease, or None if it does not satisfy the grant.

        The grant's `discard_held` rules held states out: a learner that resumed from an earlier checkpoint
        sets it. In sync mode the state must be at exactly the granted seq. In async mode a later one is as
        good: seqs may have gaps, and the state has seen more than any snapshot.
        """
        lane = self._lanes.get(grant.lane)
        if lane is None or lane.replay or grant.discard_held:
            return None
        fits = lane.seq == grant.seq if exact else lane.seq >= grant.seq
        return lane.lease_again(grant) if fits else None

    def keep(self, survives: Callable[[LaneUnroll], bool]) -> None:
        """End the leases that do not survive. Their states are kept, except those with pending replays."""
        for lane in list(self):
            if survives(lane):
                continue
            if lane.replay:
                self.drop(lane.number)
            else:
                self.put(lane.lost())

    def drop_unleased(self) -> None:
        """Discard the states that were kept in case they were granted again."""
        self._lanes = {number: lane for number, lane in self._lanes.items() if lane.leased}
