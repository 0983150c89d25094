"""Which worker should lease which lane: evenly, and with as few moves as possible."""

import dataclasses
from collections.abc import Mapping, Sequence


@dataclasses.dataclass
class Candidate:
    """A worker that may lease lanes.

    Attributes:
        worker_id: of its session.
        lanes: how many it leases, those being revoked left out.
        held: estimates behind the lane states it has in memory, by lane.
    """

    worker_id: str
    lanes: int
    held: Mapping[int, int]


def assign(free: Mapping[int, int], candidates: Sequence[Candidate]) -> list[tuple[int, str]]:
    """Return `(lane, worker_id)` for every free lane.

    Each lane goes to a worker that still has its state, unless that would leave the loads uneven, and else to
    the least loaded one.

    Args:
        free: the estimates behind each free lane, by lane.
        candidates: at least one; earlier ones win ties.
    """
    loads = {candidate.worker_id: candidate.lanes for candidate in candidates}
    share = -(-(sum(loads.values()) + len(free)) // len(candidates))
    grants = []
    keepers = {lane: _keeper(lane, seq, candidates) for lane, seq in free.items()}
    for lane in sorted(free, key=lambda lane: (keepers[lane] is None, lane)):
        keeper = keepers[lane]
        worker = (
            keeper if keeper is not None and loads[keeper] < share else min(loads, key=lambda w: loads[w])
        )
        loads[worker] += 1
        grants.append((lane, worker))
    return grants


def _keeper(lane: int, seq: int, candidates: Sequence[Candidate]) -> str | None:
    return next((candidate.worker_id for candidate in candidates if candidate.held.get(lane) == seq), None)


def surplus(candidates: Sequence[Candidate], on_the_way: int) -> list[str]:
    """Return the workers that should give a lane back, once per lane, so that loads differ by at most one.

    Args:
        candidates: at least one.
        on_the_way: lanes that are being given back already and will go to the least loaded.
    """
    loads = {candidate.worker_id: candidate.lanes for candidate in candidates}
    for _ in range(on_the_way):
        loads[min(loads, key=lambda w: loads[w])] += 1
    revocations = []
    while max(loads.values()) - min(loads.values()) > 1:
        most, least = max(loads, key=lambda w: loads[w]), min(loads, key=lambda w: loads[w])
        loads[most] -= 1
        loads[least] += 1
        revocations.append(most)
    return revocations
