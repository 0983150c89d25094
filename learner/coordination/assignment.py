"""Which worker should lease which lane: by how fast they are, and with as few moves as possible."""

import dataclasses
import math
from collections.abc import Collection, Sequence
from typing import Final

_WORTH_A_MOVE: Final = 0.8


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A worker that may lease lanes.

    Attributes:
        worker_id: of its session.
        lanes: how many it leases, those being revoked left out.
        held: lanes whose states it has in memory, such that a lease could go on from them.
        speed: estimates that it makes while a usual worker makes one.
        is_late: whether what it makes is of no use, so that it gets no further lanes while others can have
            them.
    """

    worker_id: str
    lanes: int
    held: Collection[int] = ()
    speed: float = 1.0
    is_late: bool = False


class _Loads:
    """How many lanes each candidate has, and what that means for the time that each takes."""

    def __init__(self, candidates: Sequence[Candidate]) -> None:
        self._speed = {candidate.worker_id: candidate.speed for candidate in candidates}
        self.lanes = {candidate.worker_id: candidate.lanes for candidate in candidates}
        in_time = [candidate.worker_id for candidate in candidates if not candidate.is_late]
        self._takers = in_time or list(self.lanes)

    def taker(self) -> str:
        """Return the worker that would be done first with one lane more."""
        return min(self._takers, key=self._time_with_one_more)

    def busiest(self) -> str:
        """Return the worker that is done last."""
        return max(self.lanes, key=self._time)

    def takes(self, worker: str, share_of: int) -> bool:
        """Whether a worker may have one lane more if `share_of` are shared by speed."""
        share = share_of * self._speed[worker] / sum(self._speed[taker] for taker in self._takers)
        return worker in self._takers and self.lanes[worker] < math.ceil(share - 1e-9)

    def move(self, giver: str, taker: str) -> bool:
        """Move a lane if that is worth it; returns whether it was.

        Among workers that are alike it is where it makes them more even. Where speeds are measured, they are
        never exactly so, nor the same twice: there a lane moves if its new worker will be done in a fifth
        less time than its old one. A move back would need speeds that have changed by half.
        """
        worth = 1.0 if len(set(self._speed.values())) == 1 else _WORTH_A_MOVE
        if self._time_with_one_more(taker) >= worth * self._time(giver):
            return False
        self.lanes[giver] -= 1
        self.lanes[taker] += 1
        return True

    def _time(self, worker: str) -> float:
        return self.lanes[worker] / self._speed[worker]

    def _time_with_one_more(self, worker: str) -> float:
        return (self.lanes[worker] + 1) / self._speed[worker]


def assign(free: Collection[int], candidates: Sequence[Candidate]) -> list[tuple[int, str]]:
    """Return `(lane, worker_id)` for every free lane.

    Each lane goes to a worker that still has its state, unless that has its share already, and else to the
    one that would be done first with it: what makes the slowest worker's time shortest.

    Args:
        free: the lanes.
        candidates: at least one; earlier ones win ties.
    """
    loads = _Loads(candidates)
    total = sum(loads.lanes.values()) + len(free)
    keepers = {lane: _keeper(lane, candidates) for lane in free}
    grants = []
    for lane in sorted(free, key=lambda lane: (keepers[lane] is None, lane)):
        keeper = keepers[lane]
        worker = keeper if keeper is not None and loads.takes(keeper, total) else loads.taker()
        loads.lanes[worker] += 1
        grants.append((lane, worker))
    return grants


def _keeper(lane: int, candidates: Sequence[Candidate]) -> str | None:
    return next((candidate.worker_id for candidate in candidates if lane in candidate.held), None)


def surplus(candidates: Sequence[Candidate], on_the_way: int) -> list[str]:
    """Return the workers that should give a lane back, once per lane.

    Args:
        candidates: at least one.
        on_the_way: lanes that are being given back already and will be assigned.
    """
    loads = _Loads(candidates)
    for _ in range(on_the_way):
        loads.lanes[loads.taker()] += 1
    revocations = []
    while loads.move(giver := loads.busiest(), loads.taker()):
        revocations.append(giver)
    return revocations
