"""Which lanes a worker holds, and whose turn it is."""

from collections.abc import Callable, Iterator

from protos.unspool.v1 import learner_pb2
from workers.unrolling.lane import LaneUnroll


class HeldLeases:
    """The lanes in this process.

    A lane whose lease was lost stays for a while: its state is what a new grant may ask for.
    """

    def __init__(self) -> None:
        """Hold nothing."""
        self._lanes: dict[int, LaneUnroll] = {}
        self._last_served = -1

    def __iter__(self) -> Iterator[LaneUnroll]:
        """Return the leased lanes, the next in turn first."""
        leased = sorted(lane.number for lane in self._lanes.values() if lane.leased)
        later = [number for number in leased if number > self._last_served]
        for number in later + [number for number in leased if number <= self._last_served]:
            yield self._lanes[number]

    def held(self) -> tuple[learner_pb2.HeldLane, ...]:
        """Return every lane whose state is here, leased or not."""
        return tuple(lane.held() for lane in self._lanes.values())

    def put(self, lane: LaneUnroll) -> None:
        """Hold `lane`, in the place of what was held of it before."""
        self._lanes[lane.number] = lane

    def serve(self, lane: LaneUnroll) -> None:
        """Hold `lane` after work on it: the others come first now."""
        self.put(lane)
        self._last_served = lane.number

    def leased(self, number: int, incarnation: int) -> LaneUnroll | None:
        """Return the lane if this very lease of it is held."""
        lane = self._lanes.get(number)
        return lane if lane is not None and lane.leased and lane.incarnation == incarnation else None

    def drop(self, number: int) -> None:
        """Forget a lane, if it is held."""
        self._lanes.pop(number, None)

    def reuse(self, grant: learner_pb2.LaneGrant, *, exact: bool) -> LaneUnroll | None:
        """Return the state that is here already, under the granted lease, if it is what the grant asks for.

        A learner may know better, for one that has gone on from an earlier checkpoint than this state.
        In sync that is the state at exactly the granted seq. In async a later one is as good: seqs may have
        gaps, and it has seen more than any snapshot.
        """
        lane = self._lanes.get(grant.lane)
        if lane is None or lane.replay or grant.discard_held:
            return None
        fits = lane.seq == grant.seq if exact else lane.seq >= grant.seq
        return lane.lease_again(grant) if fits else None

    def keep(self, survives: Callable[[LaneUnroll], bool]) -> None:
        """End the leases that do not survive; their states stay, except those that are half replayed."""
        for lane in list(self):
            if survives(lane):
                continue
            if lane.replay:
                self.drop(lane.number)
            else:
                self.put(lane.lost())

    def drop_unleased(self) -> None:
        """Forget the states that were kept in case they would be granted again."""
        self._lanes = {number: lane for number, lane in self._lanes.items() if lane.leased}
