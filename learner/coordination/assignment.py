"""Assignment of lanes to workers by speed, with as few moves as possible."""

import dataclasses
import math
from collections.abc import Collection, Sequence
from typing import Final

_WORTH_A_MOVE: Final = 0.8  # see `_Loads.move`


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A worker that may lease lanes.

    Attributes:
        session_id: the id of its session.
        lanes: the number of lanes that it leases, without those being revoked.
        held: lanes whose states are in its memory and from which a new lease could continue.
        speed: the number of estimates that it completes while a typical worker completes one.
        is_late: whether its estimates arrive too late to be applied; it gets no further lanes while other
            workers can take them.
    """

    session_id: str
    lanes: int
    held: Collection[int] = ()
    speed: float = 1.0
    is_late: bool = False


class _Loads:
    """The number of lanes of each candidate and the resulting time per outer step, `lanes / speed`."""

    def __init__(self, candidates: Sequence[Candidate]) -> None:
        self._speed = {candidate.session_id: candidate.speed for candidate in candidates}
        self.lanes = {candidate.session_id: candidate.lanes for candidate in candidates}
        in_time = [candidate.session_id for candidate in candidates if not candidate.is_late]
        self._takers = in_time or list(self.lanes)

    def taker(self) -> str:
        """Return the worker that would finish first with one additional lane."""
        return min(self._takers, key=self._time_with_one_more)

    def busiest(self) -> str:
        """Return the worker that finishes last."""
        return max(self.lanes, key=self._time)

    def takes(self, worker: str, share_of: int) -> bool:
        """Return whether a worker may get one more lane if `share_of` lanes are divided by speed."""
        # The tolerance keeps rounding errors from raising an integral share to the next integer.
        share = share_of * self._speed[worker] / sum(self._speed[taker] for taker in self._takers)
        return worker in self._takers and self.lanes[worker] < math.ceil(share - 1e-9)

    def move(self, giver: str, taker: str) -> bool:
        """Move a lane if the move pays off; return whether it was moved.

        Among workers of equal speed, a move pays off if it makes the loads more even. Measured speeds are
        noisy and never exactly equal, so there a lane moves only if its new worker would finish in less than
        80 % of its old worker's time. To move the lane back, the speeds would have to change by half.
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
    """Return `(lane, session_id)` for every free lane.

    A lane goes to a worker that still has its state in memory, unless that worker has its share already.
    Otherwise it goes to the worker that would finish first with it, which minimizes the slowest worker's
    time.

    Args:
        free: the lanes to assign.
        candidates: at least one; earlier ones win ties.
    """
    loads = _Loads(candidates)
    total = sum(loads.lanes.values()) + len(free)
    keepers = {lane: candidate.session_id for candidate in reversed(candidates) for lane in candidate.held}
    grants = []
    for lane in sorted(free, key=lambda lane: (lane not in keepers, lane)):
        keeper = keepers.get(lane)
        worker = keeper if keeper is not None and loads.takes(keeper, total) else loads.taker()
        loads.lanes[worker] += 1
        grants.append((lane, worker))
    return grants


def surplus(candidates: Sequence[Candidate], on_the_way: int) -> list[str]:
    """Return the workers that should return a lane, once per lane.

    Args:
        candidates: at least one.
        on_the_way: the number of lanes that are being returned and will be assigned next.
    """
    loads = _Loads(candidates)
    for _ in range(on_the_way):
        loads.lanes[loads.taker()] += 1
    revocations = []
    while loads.move(giver := loads.busiest(), loads.taker()):
        revocations.append(giver)
    return revocations
