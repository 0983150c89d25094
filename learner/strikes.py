"""Estimates that are of no use again and again: of a worker that is always late, of a lane that diverges."""

from typing import Final

from learner.lanes import Lane
from learner.leases import Leases
from learner.run import Run
from learner.sessions import WorkerSession
from protos.unspool.v1 import learner_pb2

_STRIKES: Final = 3
_NONFINITE_TO_RESET: Final = 3


class Strikes:
    """Counts them, says who it is, and does what can be done about it.

    A worker that is always late loses its lanes, one by one, to workers that are not. A lane that diverges
    begins anew. In `sync` neither happens: there is no late estimate there, and theta must not depend on
    what becomes of a lane.
    """

    def __init__(self, run: Run, leases: Leases) -> None:
        self._run = run
        self._leases = leases

    def judged(self, session: WorkerSession, verdict: learner_pb2.Verdict) -> None:
        """Take note of the last word on an estimate of a worker."""
        if verdict == learner_pb2.APPLIED:
            if session.is_late:
                self._run.events.add("info", "worker_in_time", session.name)
            session.stale_in_a_row, session.strikes, session.is_late = 0, 0, False
        elif verdict == learner_pb2.STALE and not self._run.aggregation.exact_versions:
            self._came_too_late(session)

    def _came_too_late(self, session: WorkerSession) -> None:
        now_s = self._run.clock()
        session.stale_in_a_row += 1
        if session.strikes == 0:
            session.struck_since_s = now_s
        session.strikes += 1
        # One whose estimates are quick has several in a row whenever it is held up for a moment.
        lasted_s = now_s - session.struck_since_s
        if session.strikes < _STRIKES or lasted_s < self._run.settings.liveness.heartbeat_s:
            return
        session.strikes = 0
        if not session.is_late:
            session.is_late = True
            self._run.events.add("warning", "worker_late", f"{session.name}: {_lateness(session)}")
        self._leases.relieve(session)

    def estimated(self, lane: Lane, *, finite: bool) -> None:
        """Take note of an estimate of a lane that was taken in."""
        lane.nonfinite_in_a_row = 0 if finite else lane.nonfinite_in_a_row + 1
        if lane.nonfinite_in_a_row != _NONFINITE_TO_RESET:
            return
        text = f"lane {lane.number}: {_NONFINITE_TO_RESET} estimates in a row were not finite"
        if self._run.aggregation.exact_versions:
            self._run.events.add("warning", "lane_nonfinite", text)
            return
        self._run.events.add("warning", "lane_reset", f"{text}; its unrolls begin anew")
        self._leases.reset(lane, "its estimates were not finite")
        self._leases.rebalance(self._run.clock())


def complaints(run: Run) -> list[str]:
    """Return what a person should know of workers and lanes whose estimates are of no use."""
    late = [f"worker {session.name}: {_lateness(session)}" for session in run.sessions if session.is_late]
    diverged = [
        f"lane {lane.number}: its last {lane.nonfinite_in_a_row} estimates were not finite and weigh nothing"
        for lane in run.lanes
        if lane.nonfinite_in_a_row >= _NONFINITE_TO_RESET
    ]
    return late + diverged


def _lateness(session: WorkerSession) -> str:
    return (
        f"its last {session.stale_in_a_row} estimates were too old to be used; it needs fewer lanes, "
        "or the run a larger aggregation.max_staleness"
    )
