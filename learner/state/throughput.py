"""How fast each worker makes estimates, so that lanes can go where they are done soonest."""

import math
import statistics
from collections import deque
from collections.abc import Collection
from typing import Final, NamedTuple

_KEPT: Final = 16
_ENOUGH: Final = 4
_APART_S: Final = 1.0


class _Time(NamedTuple):
    at_s: float
    kind: int
    compute_s: float


class Throughput:
    """What the latest estimates of each worker took, those that came too late included.

    Lanes with other estimators take other times, so a worker's time is compared with what the same kind of
    lane takes everywhere: workers that are alike have the same speed whichever lanes they happen to hold.
    Of quick estimates only one each second counts, for a worker that was held up for a moment is not slow.
    """

    def __init__(self, kinds: int) -> None:
        """Observe lanes of `kinds` estimators, which lanes take in turn."""
        self._kinds = kinds
        self._times: dict[str, deque[_Time]] = {}

    def observe(self, worker_id: str, lane: int, compute_s: float, now_s: float) -> None:
        """Record what an estimate of `lane` took."""
        if not (compute_s > 0 and math.isfinite(compute_s)):
            return
        times = self._times.setdefault(worker_id, deque(maxlen=_KEPT))
        if not times or now_s - times[-1].at_s >= _APART_S:
            times.append(_Time(now_s, lane % self._kinds, compute_s))

    def forget_others(self, worker_ids: Collection[str]) -> None:
        """Forget the workers that are not among `worker_ids`."""
        self._times = {worker: times for worker, times in self._times.items() if worker in worker_ids}

    def known(self) -> dict[str, float]:
        """Return the relative speed of each worker that has made a few estimates; 1 is usual.

        Medians: the first estimate of each kind compiles, and any may be held up.
        """
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
