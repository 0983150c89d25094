"""Counters of a learner process, for status and metrics."""

from collections import Counter, deque
from collections.abc import Sequence
from typing import Final, NamedTuple

from learner.storage.update_record import UpdateRecord
from protos.unspool.v1 import learner_pb2

_RATE_WINDOW_S: Final = 30.0
_RATE_SAMPLES: Final = 256


class _Sample(NamedTuple):
    at_s: float
    updates: int
    inner_steps: int


class Counters:
    """Counts of one learner process; those that continue across restarts are passed in."""

    def __init__(self, now_s: float, inner_steps: int = 0, elapsed_s: float = 0.0) -> None:
        self._started_s = now_s
        self._elapsed_before_s = elapsed_s
        self._samples = deque([_Sample(now_s, 0, inner_steps)], maxlen=_RATE_SAMPLES)
        self.inner_steps = inner_steps
        self.updates = 0
        self.verdicts: Counter[str] = Counter()
        self.staleness: Counter[int] = Counter()
        self.last_update: UpdateRecord | None = None

    def judged(self, verdict: learner_pb2.Verdict) -> None:
        """Count a verdict."""
        self.verdicts[learner_pb2.Verdict.Name(verdict)] += 1

    def applied(self, record: UpdateRecord, staleness: Sequence[int], now_s: float) -> None:
        """Count an outer update; `staleness` has one value for each of its gradients."""
        self.updates += 1
        self.inner_steps += record.inner_steps
        self.staleness.update(staleness)
        self.last_update = record
        self._samples.append(_Sample(now_s, self.updates, self.inner_steps))

    def elapsed_s(self, now_s: float) -> float:
        """Return the run's elapsed time in seconds, across all restarts."""
        return self._elapsed_before_s + now_s - self._started_s

    def rates(self, now_s: float) -> tuple[float, float]:
        """Return updates per second and inner steps per second over the last `_RATE_WINDOW_S` seconds."""
        recent = [sample for sample in self._samples if now_s - sample.at_s <= _RATE_WINDOW_S]
        first = recent[0] if recent else self._samples[-1]
        span_s = now_s - first.at_s
        if span_s <= 0:
            return 0.0, 0.0
        return (self.updates - first.updates) / span_s, (self.inner_steps - first.inner_steps) / span_s
