"""How sessions end: what a worker is told last, and what becomes of its lanes."""

from typing import Final

from learner import letters
from learner.leases import Leases
from learner.phase import RunState
from learner.run import Run
from learner.sessions import WorkerSession
from protos.unspool.v1.learner_pb2 import Goodbye

_FAREWELLS: Final = {RunState.FINISHED: Goodbye.FINISHED, RunState.STOPPED: Goodbye.STOPPED}


class Departures:
    """Ends sessions."""

    def __init__(self, run: Run, leases: Leases) -> None:
        self._run = run
        self._leases = leases

    def dismiss(self, session: WorkerSession) -> None:
        """Tell a worker how the run has ended. Its session ends with its stream."""
        reason = _FAREWELLS.get(self._run.phase.final or RunState.FAILED, Goodbye.FAILED)
        self._run.send(session, letters.goodbye(reason, f"at outer step {self._run.version}"))

    def close(self, session: WorkerSession, reason: Goodbye.Reason, detail: str) -> None:
        """End a session; its lanes go to others."""
        self._run.send(session, letters.goodbye(reason, detail))
        self._leases.release_all(session)
        self._run.sessions.close(session)
        if self._run.phase.final is None:
            self._leases.rebalance(self._run.clock())

    def expire(self, session: WorkerSession, reason: Goodbye.Reason, detail: str) -> None:
        """End the session of a worker that does not answer any more, or not as itself."""
        lost = [lane.number for lane in self._run.lanes.held_by(session.worker_id)]
        self.close(session, reason, detail)
        self._run.events.add("warning", "worker_expired", f"{session.name}: {detail}; lanes {lost} are free")
