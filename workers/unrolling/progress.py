"""A worker's progress for its heartbeats: written by the worker's thread, read by the session's threads."""

import collections
import os
import resource
import sys
import threading
from collections.abc import Callable, Iterable
from pathlib import Path

from protos.unspool.v1 import learner_pb2

_RECENT_ESTIMATES = 64
_STATM = Path("/proc/self/statm")


class Progress:
    """The state reported in the next heartbeat. Thread-safe."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """Start idle; `clock` returns monotonic seconds."""
        self._clock = clock
        self._lock = threading.Lock()
        self._phase: learner_pb2.Heartbeat.Phase = learner_pb2.Heartbeat.IDLE
        self._phase_began_s = clock()
        self._waiting_for = ""
        self._lane: int | None = None
        self._estimates = 0
        self._lanes: tuple[learner_pb2.HeldLane, ...] = ()
        self._recent: collections.deque[tuple[float, int]] = collections.deque(maxlen=_RECENT_ESTIMATES)

    def enter(
        self, phase: learner_pb2.Heartbeat.Phase, waiting_for: str = "", *, lane: int | None = None
    ) -> None:
        """Enter a phase; `lane` is the lane it works on, if any.

        Each estimate starts a new phase, because the learner detects hangs by the phase's age.
        """
        with self._lock:
            # Idle time accumulates even if the reason for waiting changes.
            still_idle = phase == self._phase == learner_pb2.Heartbeat.IDLE
            self._phase, self._waiting_for, self._lane = phase, waiting_for, lane
            if not still_idle:
                self._phase_began_s = self._clock()

    def hold(self, lanes: Iterable[learner_pb2.HeldLane]) -> None:
        """Set the lanes whose unroll states this process holds."""
        with self._lock:
            self._lanes = tuple(lanes)

    def estimated(self, began_s: float, inner_steps: int, *, compiled: bool) -> None:
        """Count an estimate that began at `began_s`; one that compiled is excluded from the throughput."""
        with self._lock:
            self._estimates += 1
            if compiled:
                self._recent.clear()
            else:
                self._recent.append((began_s, inner_steps))

    def heartbeat(self) -> learner_pb2.Heartbeat:
        """Return the current heartbeat."""
        with self._lock:
            now_s = self._clock()
            return learner_pb2.Heartbeat(
                phase=self._phase,
                phase_age_s=now_s - self._phase_began_s,
                progress=self._estimates,
                resident_bytes=_resident_bytes(),
                waiting_for=self._waiting_for,
                inner_steps_per_s=self._inner_steps_per_s(now_s),
                lanes=self._lanes,
                lane=self._lane,
            )

    def _inner_steps_per_s(self, now_s: float) -> float:
        if not self._recent:
            return 0.0
        elapsed_s = now_s - self._recent[0][0]
        return sum(steps for _, steps in self._recent) / elapsed_s if elapsed_s > 0 else 0.0


def _resident_bytes() -> int:
    try:
        return int(_STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        # Without /proc, report peak memory as the next best figure; it is in bytes on macOS, in KiB
        # elsewhere.
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024
