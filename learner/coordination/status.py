"""The status message of a run, shown by commands, page and metrics, and a text on what the run waits for."""

import math
from typing import Final

from learner.coordination.lateness import how_late
from learner.coordination.quarantine import NONFINITE_TO_RESET
from learner.state.lanes import Lane, LaneState
from learner.state.run import Run
from learner.state.run_state import RunState
from learner.state.sessions import WorkerSession
from protos.unspool.v1 import admin_pb2, learner_pb2
from protos.unspool.v1.admin_pb2 import Status
from unspool.failure_report import last_line

_LANES_NAMED: Final = 4
_PROBLEMS_CHARACTERS: Final = 256 * 1024  # over all lanes; must fit into one message


def build_status(run: Run) -> Status:
    """Return the current status of a run."""
    now_s = run.clock()
    last = run.telemetry.counters.last_update
    updates_per_s, inner_steps_per_s = run.telemetry.counters.rates(now_s)
    remaining = run.settings.experiment.outer_steps - run.outer_step
    status = Status(
        run=run.settings.run_id,
        state=run.state,
        waiting_for=waiting_for(run),
        term=run.term,
        outer_step=run.outer_step,
        outer_steps=run.settings.experiment.outer_steps,
        theta_sha256=run.thetas.newest.sha256,
        updates_per_s=updates_per_s,
        inner_steps_per_s=inner_steps_per_s,
        inner_steps=run.telemetry.counters.inner_steps,
        workers_desired=run.scale.workers,
        workers_min=run.scale.workers if run.scale.bounds is None else run.scale.bounds.fewest,
        workers_max=run.scale.workers if run.scale.bounds is None else run.scale.bounds.most,
        workers=[_worker(run, session, now_s) for session in run.sessions],
        lanes=[_lane(run, lane) for lane in run.lanes],
        verdicts=run.telemetry.counters.verdicts,
        endpoints=run.telemetry.endpoints,
        checkpoint=run.checkpoint and run.checkpoint[0].info(now_s - run.checkpoint[1]),
        elapsed_s=run.telemetry.counters.elapsed_s(now_s),
        eta_s=remaining / updates_per_s if updates_per_s else 0.0,
        mode=run.settings.aggregation.mode,
        problems=_problems(run),
        buffered=len(run.buffer),
        access_denials=run.telemetry.denials.counts(),
        excluded_hosts=run.excluded_hosts,
        failures=run.telemetry.code_failures.summaries(),
        absent_workers=run.telemetry.supervision.absent_workers,
    )
    status.staleness.SetInParent()
    if last is not None:
        status.grad_norm, status.diverged_tasks = last.grad_norm, last.diverged_tasks
        status.staleness.mean, status.staleness.max = last.staleness_mean, last.staleness_max
        if not math.isnan(last.loss):
            status.loss = last.loss
    return status


def waiting_for(run: Run) -> str:
    """Return what the run waits for, with the workers and lanes involved; empty if the run has ended."""
    match run.state:
        case RunState.STOPPED | RunState.FINISHED | RunState.FAILED | RunState.UNTRAINED:
            return ""
        case RunState.PAUSED:
            return "a resume command"
        case RunState.WAITING_FOR_WORKERS:
            here = len(run.sessions)
            return f"a worker ({here} joined, {run.scale.workers} requested)"
    if run.applying:
        return "the outer update"
    if run.blocked:
        return f"{run.blocked}: {_name_lanes(run)}"
    shortfall = run.aggregation.shortfall(run.buffer, run.outer_step, run.clock())
    return f"{shortfall}: {_name_lanes(run)}" if shortfall else "the outer update"


def _name_lanes(run: Run) -> str:
    arrived = run.buffer.lanes()
    missing = [lane for lane in run.lanes if lane.number not in arrived]
    missing.sort(key=lambda lane: lane.state is not LaneState.QUARANTINED)
    named = [f"lane {lane.number} {_location(run, lane)}" for lane in missing[:_LANES_NAMED]]
    more = len(missing) - len(named)
    return ", ".join([*named, f"{more} more"] if more else named)


def _location(run: Run, lane: Lane) -> str:
    session = run.holder(lane)
    if session is None:
        return "in quarantine until `reset-lane`" if lane.state is LaneState.QUARANTINED else "free"
    doing = _phase(session)
    if session.heartbeat.waiting_for:
        doing = f"{doing}, waiting for {session.heartbeat.waiting_for}"
    return f"on {session.name} ({doing})"


def _problems(run: Run) -> list[str]:
    quarantined = run.lanes.quarantined()
    more = len(quarantined) - _LANES_NAMED
    standstill = run.control.standstill(run.outer_step)
    return [
        *([f"theta: {standstill}"] if standstill else []),
        *(f"{about}: {problem}" for about, problem in run.telemetry.problems.items()),
        *(f"host {host}: excluded: {why}" for host, why in run.excluded_hosts.items()),
        *(
            f"lane {lane.number}: in quarantine until `reset-lane`: {last_line(lane.problem)}"
            for lane in quarantined[:_LANES_NAMED]
        ),
        *([f"{more} more lanes: in quarantine until `reset-lane`"] if more > 0 else []),
        *(f"workers end with {failure.report}" for failure in run.telemetry.code_failures.recent()),
        *(f"worker {session.name}: {how_late(session)}" for session in run.sessions if session.is_late),
        *(
            f"lane {lane.number}: its last {lane.nonfinite_in_a_row} estimates were "
            "not finite and have no weight"
            for lane in run.lanes
            if lane.nonfinite_in_a_row >= NONFINITE_TO_RESET
        ),
        *run.telemetry.supervision.problems,
    ]


def _problem_of(run: Run, lane: Lane) -> str:
    """Return why a lane is in quarantine, truncated so that a status with many such lanes can be sent."""
    share = _PROBLEMS_CHARACTERS // max(1, len(run.lanes.quarantined())) if lane.problem else 0
    return lane.problem[-share:] if share else ""


def _phase(session: WorkerSession) -> str:
    if not session.heartbeat.phase:
        return "starting"
    return str(learner_pb2.Heartbeat.Phase.Name(session.heartbeat.phase)).lower()


def _worker(run: Run, session: WorkerSession, now_s: float) -> admin_pb2.WorkerStatus:
    join_request, heartbeat = session.join_request, session.heartbeat
    return admin_pb2.WorkerStatus(
        name=session.name,
        host=join_request.host,
        pid=join_request.pid,
        state=session.state(now_s, run.settings.liveness.heartbeat_s),
        lanes=[lane.number for lane in run.lanes.held_by(session.session_id)],
        phase=_phase(session),
        waiting_for=heartbeat.waiting_for,
        heartbeat_age_s=now_s - session.last_message_s,
        inner_steps_per_s=heartbeat.inner_steps_per_s,
        estimates=session.estimates,
        resident_bytes=heartbeat.resident_bytes,
        device_kind=join_request.device_kind,
        process_uuid=join_request.process_uuid,
        workers=heartbeat.workers or 1,
        stale_in_a_row=session.stale_in_a_row,
    )


def _lane(run: Run, lane: Lane) -> admin_pb2.LaneStatus:
    session = run.holder(lane)
    snapshot = lane.newest_snapshot(lane.reached)
    return admin_pb2.LaneStatus(
        lane=lane.number,
        state=lane.state,
        worker=session.name if session else "",
        seq=lane.accepted,
        fencing_token=lane.fencing_token,
        inner_step=lane.inner_step,
        snapshot_seq=snapshot.seq if snapshot else 0,
        loss=lane.loss,
        problem=_problem_of(run, lane),
        failures=run.failures.count(lane.number),
        estimator=type(run.settings.experiment.estimator(lane.number)).__name__,
    )
