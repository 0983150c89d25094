"""Workers whose estimates are always too old to be used lose lanes, one by one, to others."""

from typing import Final

from learner.coordination.leases import Leases
from learner.state.run import Run
from learner.state.sessions import WorkerSession
from protos.unspool.v1 import learner_pb2

_LATE_PUSHES: Final = 3


class Lateness:
    """Counts each worker's late pushes. In `sync` there are none."""

    def __init__(self, run: Run, leases: Leases) -> None:
        self._run = run
        self._leases = leases

    def judged(self, session: WorkerSession, verdict: learner_pb2.Verdict) -> None:
        """Record the verdict on a push of a worker."""
        if verdict == learner_pb2.APPLIED:
            if session.is_late:
                self._run.report("info", "worker_in_time", session.name)
            session.stale_in_a_row, session.late_pushes, session.is_late = 0, 0, False
        elif verdict == learner_pb2.STALE and not self._run.aggregation.exact_versions:
            self._came_too_late(session)

    def _came_too_late(self, session: WorkerSession) -> None:
        now_s = self._run.clock()
        session.stale_in_a_row += 1
        if session.late_pushes == 0:
            session.late_since_s = now_s
        session.late_pushes += 1
        # A worker whose estimates are quick has several in a row whenever it is held up for a moment.
        lasted_s = now_s - session.late_since_s
        if session.late_pushes < _LATE_PUSHES or lasted_s < self._run.settings.liveness.heartbeat_s:
            return
        session.late_pushes = 0
        if not session.is_late:
            session.is_late = True
            self._run.report("warning", "worker_late", f"{session.name}: {how_late(session)}")
        self._leases.relieve(session)


def how_late(session: WorkerSession) -> str:
    """Return what a person should know of a late worker, and the remedy."""
    return (
        f"its last {session.stale_in_a_row} estimates were too old to be used; it needs fewer lanes, "
        "or the run a larger aggregation.max_staleness"
    )
