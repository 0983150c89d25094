"""What follows when estimates fail: a lane that none can compute waits for a person, a bad host is left out.

Neither ends the run. `sync` waits for the lane, since theta depends on each; `async` and `quorum` go on.
"""

from learner.departures import Departures
from learner.failures import IDENTICAL, Failure
from learner.lanes import Lane, LaneState
from learner.run import Run
from learner.sessions import SessionState, WorkerSession
from protos.unspool.v1 import learner_pb2
from protos.unspool.v1.learner_pb2 import Goodbye


class Quarantine:
    """Judges failures, and lifts its judgements on demand."""

    def __init__(self, run: Run, departures: Departures) -> None:
        self._run = run
        self._departures = departures

    def failed(self, session: WorkerSession, lane: Lane, message: learner_pb2.LaneFailure) -> None:
        """Take note of an estimate that raised; its worker ends, and another one will try.

        The third identical failure on a host, over several lanes, is the host's fault if others work; the
        third of one lane is the lane's.
        """
        failure = Failure.read(message, session.introduction.host)
        self._run.failures.add(failure)
        if failure.report is not None:
            self._run.code_failures.add(
                failure.report,
                session=session.worker_id,
                worker=session.name,
                host=failure.host,
                lane=lane.number,
            )
        text = f"lane {lane.number} at seq {failure.seq} on {session.name} ({failure.host}): {failure.error}"
        self._run.events.add("warning", "lane_failed", text)
        if self._is_hosts_fault(failure):
            self._exclude(failure)
        elif self._run.failures.repeats(lane.number) >= IDENTICAL:
            self._run.lanes.quarantine(lane, failure.traceback)
            text = f"lane {lane.number}: {IDENTICAL} identical failures\n{failure.traceback}"
            self._run.events.add("error", "lane_quarantined", text)

    def reset(self, lane: Lane) -> None:
        """Let a lane be leased again, as if it had never failed."""
        self._run.failures.forget_lane(lane.number)
        self._run.lanes.lift_quarantine(lane)

    def _is_hosts_fault(self, failure: Failure) -> bool:
        failures = self._run.failures
        lanes = failures.lanes_failing(failure.host, failure.digest)
        if len(lanes) < IDENTICAL or len(set(lanes)) < 2:
            return False
        now_s, heartbeat_s = self._run.clock(), self._run.settings.liveness.heartbeat_s
        return any(
            session.estimates > 0
            and session.state(now_s, heartbeat_s) is SessionState.ACTIVE
            and session.introduction.host != failure.host
            and not failures.lanes_failing(session.introduction.host, failure.digest)
            for session in self._run.sessions
        )

    def _exclude(self, failure: Failure) -> None:
        host = failure.host
        why = f"{IDENTICAL} identical failures of several lanes: {failure.error}"
        self._run.excluded_hosts[host] = why
        self._run.events.add("error", "host_excluded", f"{host}: {why}\n{failure.traceback}")
        self._run.failures.forget_host(host)
        for lane in self._run.lanes:
            if lane.state is LaneState.QUARANTINED and self._run.failures.repeats(lane.number) < IDENTICAL:
                self._run.lanes.lift_quarantine(lane)
        for session in [other for other in self._run.sessions if other.introduction.host == host]:
            self._departures.close(session, Goodbye.EVICTED, f"host {host} is excluded: {why}")
