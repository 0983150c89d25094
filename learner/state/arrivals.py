"""How long gradients take to arrive, and so how long it is worth to wait for those that are missing."""

import statistics
from collections import deque
from typing import Final, NamedTuple

_STEPS: Final = 8
_KEPT_STEPS: Final = 256
_DEVIATIONS: Final = 3.0


class _Arrival(NamedTuple):
    theta_version: int
    offset_s: float


class ArrivalTimes:
    """Observes when the gradients of an outer step arrive, counted from the step's beginning.

    Counted from there, every gradient is one observation: before or after the quorum was complete, carried
    into a later step, or turned away as too old. Counted from the quorum's completion, those that came early
    would say nothing and those that came too late for their step would be lost, so that the estimate could
    only shrink.

    The median and the median absolute deviation, and not mean and variance, so that a few lanes that are much
    slower than the others are not waited for.
    """

    def __init__(self, lanes: int, longest_s: float) -> None:
        """Observe a run of `lanes` lanes; nothing is waited for longer than `longest_s`."""
        self._longest_s = longest_s
        self._arrivals: deque[_Arrival] = deque(maxlen=_STEPS * lanes)
        self._began_s: dict[int, float] = {}

    def began(self, outer_step: int, now_s: float) -> None:
        """Record that theta `outer_step` was published.

        The first one of a learner process is better left out: its gradients wait for workers that join and
        compile.
        """
        self._began_s[outer_step] = now_s
        self._began_s.pop(outer_step - _KEPT_STEPS, None)

    def arrived(self, theta_version: int, now_s: float) -> None:
        """Observe a gradient that was made with `theta_version`."""
        began_s = self._began_s.get(theta_version)
        if began_s is not None:
            self._arrivals.append(_Arrival(theta_version, min(now_s - began_s, self._longest_s)))

    def grace_s(self, outer_step: int, complete_s: float) -> float:
        """Return how long the others are waited for once the quorum was complete, at `complete_s`.

        Until median + 3 MAD of the observed times after the step's beginning, if that is still to come. While
        nothing was observed, nothing is waited for.

        Args:
            outer_step: of theta now.
            complete_s: when the last gradient of the quorum arrived.
        """
        # Of the running step only the early ones are here yet.
        offsets_s = [arrival.offset_s for arrival in self._arrivals if arrival.theta_version < outer_step]
        if not offsets_s or outer_step not in self._began_s:
            return 0.0
        median_s = statistics.median(offsets_s)
        deviation_s = statistics.median(abs(offset_s - median_s) for offset_s in offsets_s)
        ends_s = self._began_s[outer_step] + median_s + _DEVIATIONS * deviation_s
        return min(max(0.0, ends_s - complete_s), self._longest_s)
