"""What a worker is doing, as its heartbeats tell it: the worker writes, the session's threads read."""

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
    """The state behind the next heartbeat. Safe to use from any thread."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """Start idle; `clock` gives monotonic seconds."""
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
        """Begin a phase, with `lane` if it is work on one.

        Each estimate is a phase of its own: its age is what a watcher judges a hang by.
        """
        with self._lock:
            still_idle = phase == self._phase == learner_pb2.Heartbeat.IDLE
            self._phase, self._waiting_for, self._lane = phase, waiting_for, lane
            if not still_idle:
                self._phase_began_s = self._clock()

    def hold(self, lanes: Iterable[learner_pb2.HeldLane]) -> None:
        """Say which lanes' unroll states this process holds."""
        with self._lock:
            self._lanes = tuple(lanes)

    def estimated(self, began_s: float, inner_steps: int, *, compiled: bool) -> None:
        """Count an estimate that began at `began_s`; one that had to compile says nothing about the pace."""
        with self._lock:
            self._estimates += 1
            if compiled:
                self._recent.clear()
            else:
                self._recent.append((began_s, inner_steps))

    def heartbeat(self) -> learner_pb2.Heartbeat:
        """Return what there is to say now."""
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
        # No /proc: the peak is the next best figure, in bytes on macOS and in KiB elsewhere.
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024
