"""Arrival times of gradients, and the grace period derived from them."""

import statistics
from collections import deque
from typing import Final, NamedTuple

_STEPS: Final = 8  # outer steps over which the statistics are computed
_KEPT_STEPS: Final = 256  # start times are kept longer, for stale gradients
_DEVIATIONS: Final = 3.0  # the k in median + k MAD


class _Arrival(NamedTuple):
    outer_step: int
    offset_s: float


class ArrivalTimes:
    """Observes the arrival times of gradients, measured from the start of their outer step.

    With this origin, every gradient is one observation, whether it arrives before or after the quorum is
    complete, goes into a later step, or is rejected as stale. Measured from the completion of the quorum,
    early gradients would carry no information and those too late for their step would be lost, so the grace
    period could only shrink.

    The statistics are the median and the median absolute deviation (MAD) instead of mean and variance, so
    that updates do not wait for a few lanes that are much slower than the others.
    """

    def __init__(self, lanes: int, longest_s: float) -> None:
        """Observe a run of `lanes` lanes; no grace period exceeds `longest_s`."""
        self._longest_s = longest_s
        self._arrivals: deque[_Arrival] = deque(maxlen=_STEPS * lanes)
        self._began_s: dict[int, float] = {}

    def began(self, outer_step: int, now_s: float) -> None:
        """Record that theta `outer_step` was published.

        Do not record the first theta of a learner process: its gradients wait for workers to join and
        compile.
        """
        self._began_s[outer_step] = now_s
        self._began_s.pop(outer_step - _KEPT_STEPS, None)

    def arrived(self, outer_step: int, now_s: float) -> None:
        """Record the arrival of a gradient at `outer_step`."""
        began_s = self._began_s.get(outer_step)
        if began_s is not None:
            self._arrivals.append(_Arrival(outer_step, min(now_s - began_s, self._longest_s)))

    def grace_s(self, outer_step: int, complete_s: float) -> float:
        """Return the grace period after `complete_s`, at which the quorum was complete.

        It ends at median + 3 MAD of the observed arrival times after the start of the step, and is 0 if that
        time has passed or without observations.

        Args:
            outer_step: the current outer step.
            complete_s: when the last gradient of the quorum arrived.
        """
        # Exclude the current step: only its early gradients have arrived, which would bias the statistics.
        offsets_s = [arrival.offset_s for arrival in self._arrivals if arrival.outer_step < outer_step]
        if not offsets_s or outer_step not in self._began_s:
            return 0.0
        median_s = statistics.median(offsets_s)
        deviation_s = statistics.median(abs(offset_s - median_s) for offset_s in offsets_s)
        ends_s = self._began_s[outer_step] + median_s + _DEVIATIONS * deviation_s
        return min(max(0.0, ends_s - complete_s), self._longest_s)
