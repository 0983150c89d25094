"""Lateness: a worker whose estimates are repeatedly stale loses lanes, one at a time, to other workers."""

from typing import Final

from learner.coordination.leases import Leases
from learner.state.run import Run
from learner.state.sessions import WorkerSession
from protos.unspool.v1 import learner_pb2

_LATE_PUSHES: Final = 3


class Lateness:
    """Counts each worker's late pushes. In `sync`, no push counts as late."""

    def __init__(self, run: Run, leases: Leases) -> None:
        self._run = run
        self._leases = leases

    def judged(self, session: WorkerSession, verdict: learner_pb2.Verdict) -> None:
        """Record the verdict on a worker's push."""
        if verdict == learner_pb2.APPLIED:
            if session.is_late:
                self._run.report("info", "worker_in_time", session.name)
            session.stale_in_a_row, session.late_pushes, session.is_late = 0, 0, False
        elif verdict == learner_pb2.STALE and not self._run.aggregation.exact_steps:
            self._came_too_late(session)

    def _came_too_late(self, session: WorkerSession) -> None:
        now_s = self._run.clock()
        session.stale_in_a_row += 1
        if session.late_pushes == 0:
            session.late_since_s = now_s
        session.late_pushes += 1
        # A fast worker has several stale estimates in a row after any short delay, so require a duration too.
        lasted_s = now_s - session.late_since_s
        if session.late_pushes < _LATE_PUSHES or lasted_s < self._run.settings.liveness.heartbeat_s:
            return
        session.late_pushes = 0
        if not session.is_late:
            session.is_late = True
            self._run.report("warning", "worker_late", f"{session.name}: {how_late(session)}")
        self._leases.relieve(session)


def how_late(session: WorkerSession) -> str:
    """Return a late worker's problem and the remedy, for status and events."""
    return (
        f"its last {session.stale_in_a_row} estimates were too old to be used; it needs fewer lanes, "
        "or the run a larger aggregation.max_staleness"
    )
