"""Expires silent sessions, and takes lanes from workers that make no progress.

A heartbeat shows only that a process runs; a process whose kernel hangs still sends heartbeats. So progress
is checked separately, by a time limit for each phase.
"""

from typing import Final

from learner.coordination.leases import Leases
from learner.coordination.stacks import Stacks
from learner.state.run import Run
from learner.state.sessions import SessionStatus, WorkerSession
from protos.rpc.liveness import phase_budget_s
from protos.unspool.v1 import learner_pb2
from protos.unspool.v1.learner_pb2 import Goodbye

_NOT_WORKING: Final = (SessionStatus.SUSPECT, SessionStatus.STUCK)


class Liveness:
    """Checks the liveness and the progress of every session."""

    def __init__(self, run: Run, leases: Leases, stacks: Stacks) -> None:
        self._run = run
        self._leases = leases
        self._stacks = stacks

    def check(self) -> None:
        """Expire silent sessions and release the lanes of stuck workers."""
        now_s = self._run.clock()
        for session in list(self._run.sessions):
            silent_s = now_s - session.last_message_s
            if silent_s > self._run.settings.liveness.lease_ttl_s:
                self._leases.expire(session, Goodbye.EXPIRED, f"no message for {silent_s:.1f} s")
            else:
                self._watch(session, now_s)

    def _watch(self, session: WorkerSession, now_s: float) -> None:
        report, heartbeat_s = self._run.report, self._run.settings.liveness.heartbeat_s
        state = session.state(now_s, heartbeat_s)
        if state in (SessionStatus.ACTIVE, SessionStatus.DRAINING) and (why := overdue(self._run, session)):
            session.stuck_at = session.heartbeat.progress
            lost = self._leases.release_all(session)
            report("warning", "worker_stuck", f"{session.name}: {why}; lanes {lost} are leased to others")
            self._stacks.record(session)
        elif state is SessionStatus.SUSPECT and session.reported is not SessionStatus.SUSPECT:
            silent = "its stream broke" if session.stream is None else "no heartbeat"
            report(
                "warning",
                "worker_suspect",
                f"{session.name}: {silent}; it keeps its lanes until its lease ends",
            )
        elif state is SessionStatus.ACTIVE and session.reported in _NOT_WORKING:
            report("info", "worker_back", session.name)
        session.reported = session.state(now_s, heartbeat_s)


def overdue(run: Run, session: WorkerSession) -> str:
    """Return how a worker's phase exceeds its time limit; empty if it does not.

    The push phase has no limit: heartbeats share its stream, between the chunks, so a connection that does
    not transmit a push is silent.
    """
    heartbeat = session.heartbeat
    known = heartbeat.HasField("lane") and heartbeat.lane < len(run.lanes)
    budget_s = phase_budget_s(heartbeat, run.lanes[heartbeat.lane].compute_times_s if known else ())
    if budget_s is None or heartbeat.phase_age_s <= budget_s:
        return ""
    phase = learner_pb2.Heartbeat.Phase.Name(heartbeat.phase).lower()
    lane = f" lane {heartbeat.lane}" if heartbeat.HasField("lane") else ""
    return f"{phase}{lane} for {heartbeat.phase_age_s:.0f} s (allowed: {budget_s:.0f} s)"
