"""The relative speed of each worker, for the assignment of lanes."""

import math
import statistics
from collections import deque
from collections.abc import Collection
from typing import Final, NamedTuple

_KEPT: Final = 16
_ENOUGH: Final = 4  # a worker with fewer times has no known speed
_APART_S: Final = 1.0


class _Time(NamedTuple):
    at_s: float
    kind: int
    compute_s: float


class Throughput:
    """The compute times of each worker's latest estimates, including stale ones.

    Compute times depend on a lane's estimator, so each time is divided by the median over all workers for
    lanes of the same kind. Equal workers then have equal speeds, whichever lanes they hold. At most one
    estimate per second is recorded, so that a short delay does not make a worker with fast estimates slow.
    """

    def __init__(self, kinds: int) -> None:
        """Observe lanes of `kinds` estimators, which are assigned to lanes round-robin."""
        self._kinds = kinds
        self._times: dict[str, deque[_Time]] = {}

    def observe(self, session_id: str, lane: int, compute_s: float, now_s: float) -> None:
        """Record the compute time of an estimate of `lane`."""
        if not (compute_s > 0 and math.isfinite(compute_s)):
            return
        times = self._times.setdefault(session_id, deque(maxlen=_KEPT))
        if not times or now_s - times[-1].at_s >= _APART_S:
            times.append(_Time(now_s, lane % self._kinds, compute_s))

    def known(self, session_ids: Collection[str]) -> dict[str, float]:
        """Return the relative speed of each worker with at least `_ENOUGH` recorded times; 1 is typical.

        Medians are used because the first estimate of each kind compiles and any estimate may be delayed.
        The times of workers that are not in `session_ids` are discarded.
        """
        self._times = {worker: times for worker, times in self._times.items() if worker in session_ids}
        usual_s = self._usual_s()
        return {
            worker: 1.0 / statistics.median(time.compute_s / usual_s[time.kind] for time in times)
            for worker, times in self._times.items()
            if len(times) >= _ENOUGH
        }

    def _usual_s(self) -> dict[int, float]:
        by_kind: dict[int, list[float]] = {}
        for times in self._times.values():
            for time in times:
                by_kind.setdefault(time.kind, []).append(time.compute_s)
        return {kind: statistics.median(seconds) for kind, seconds in by_kind.items()}
