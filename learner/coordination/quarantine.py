"""Failed and diverged estimates: quarantines or resets lanes, and excludes hosts.

The run continues in each case. `sync` waits for a quarantined lane, because theta depends on every lane;
`async` and `quorum` continue without it.
"""

from typing import Final

from learner.coordination.leases import Leases
from learner.state.failures import IDENTICAL, Failure
from learner.state.lanes import Lane, LaneState
from learner.state.run import Run
from learner.state.sessions import SessionStatus, WorkerSession
from protos.unspool.v1 import learner_pb2
from protos.unspool.v1.learner_pb2 import Goodbye

NONFINITE_TO_RESET: Final = 3
"""Consecutive non-finite estimates of a lane after which its unrolls are restarted."""


class Quarantine:
    """Judges failed and diverged estimates."""

    def __init__(self, run: Run, leases: Leases) -> None:
        self._run = run
        self._leases = leases

    def failed(self, session: WorkerSession, lane: Lane, message: learner_pb2.LaneFailure) -> None:
        """Record an estimate that raised an exception; its worker exits, and the lane is leased again.

        The third identical failure on a host excludes the host if several lanes failed on it and another host
        works. Otherwise, the third identical failure of a lane quarantines the lane.
        """
        failure = Failure.read(message, session.join_request.host)
        self._run.failures.add(failure)
        if failure.report is not None:
            self._run.telemetry.code_failures.add(failure.report, session, lane.number)
        text = f"lane {lane.number} at seq {failure.seq} on {session.name} ({failure.host}): {failure.error}"
        self._run.report("warning", "lane_failed", text)
        if self._is_hosts_fault(failure):
            self._exclude(failure)
        elif self._run.failures.repeats(lane.number) >= IDENTICAL:
            self._run.lanes.quarantine(lane, failure.traceback)
            text = f"lane {lane.number}: {IDENTICAL} identical failures\n{failure.traceback}"
            self._run.report("error", "lane_quarantined", text)

    def estimated(self, lane: Lane, *, finite: bool) -> None:
        """Record an accepted estimate, and reset a lane whose estimates are repeatedly non-finite.

        In `sync`, such a lane is only reported, because theta depends on its state.
        """
        lane.nonfinite_in_a_row = 0 if finite else lane.nonfinite_in_a_row + 1
        if lane.nonfinite_in_a_row != NONFINITE_TO_RESET:
            return
        text = f"lane {lane.number}: {NONFINITE_TO_RESET} estimates in a row were not finite"
        if self._run.aggregation.exact_steps:
            self._run.report("warning", "lane_nonfinite", text)
            return
        self._run.report("warning", "lane_reset", f"{text}; its unrolls are restarted")
        self._leases.reset(lane, "its estimates were not finite")
        self._leases.rebalance(self._run.clock())

    def reset(self, lane: Lane) -> None:
        """Forget a lane's failures and lift its quarantine."""
        self._run.failures.forget_lane(lane.number)
        self._run.lanes.lift_quarantine(lane)

    def _is_hosts_fault(self, failure: Failure) -> bool:
        # Blame the host if several lanes fail there, while an active worker elsewhere succeeds and never
        # failed in this way.
        failures = self._run.failures
        lanes = failures.lanes_failing(failure.host, failure.digest)
        if len(lanes) < IDENTICAL or len(set(lanes)) < 2:
            return False
        now_s, heartbeat_s = self._run.clock(), self._run.settings.liveness.heartbeat_s
        return any(
            session.estimates > 0
            and session.state(now_s, heartbeat_s) is SessionStatus.ACTIVE
            and session.join_request.host != failure.host
            and not failures.lanes_failing(session.join_request.host, failure.digest)
            for session in self._run.sessions
        )

    def _exclude(self, failure: Failure) -> None:
        host = failure.host
        why = f"{IDENTICAL} identical failures of several lanes: {failure.error}"
        self._run.excluded_hosts[host] = why
        self._run.report("error", "host_excluded", f"{host}: {why}\n{failure.traceback}")
        self._run.failures.forget_host(host)
        # Release the lanes that were in quarantine only because of failures on this host.
        for lane in self._run.lanes:
            if lane.state is LaneState.QUARANTINED and self._run.failures.repeats(lane.number) < IDENTICAL:
                self._run.lanes.lift_quarantine(lane)
        for session in [other for other in self._run.sessions if other.join_request.host == host]:
            self._leases.close(session, Goodbye.EVICTED, f"host {host} is excluded: {why}")
