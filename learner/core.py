"""The learner without its transport: every event that changes it is a method, and what it says is collected.

No thread, no socket, no clock of its own: callers serialise the calls (`Runtime` does) and deliver the mail.
"""

from typing import Final

from learner import letters
from learner.admission import Body, check_worker
from learner.aggregation import Batch
from learner.autoscale import Autoscaler
from learner.code_failures import read_report
from learner.departures import Departures
from learner.events import Level
from learner.leases import Leases
from learner.liveness import Liveness
from learner.operator import Operator
from learner.outcome import Effect, Outcome
from learner.phase import RunState
from learner.pushes import Pushes
from learner.quarantine import Quarantine
from learner.run import Run
from learner.sessions import WorkerSession
from learner.snapshots import SnapshotRef
from learner.stacks import Stacks
from protos.rpc.denials import DenialReason
from protos.rpc.session_service import JoinDeniedError
from protos.unspool.v1 import learner_pb2
from protos.unspool.v1.learner_pb2 import Goodbye, GradientEstimatorOut

_RECENT_VERSIONS: Final = (
    4  # a worker may still be fetching a theta that was the newest when it was announced
)
_LOG_LINES: Final = 1000
_LOG_CHARACTERS: Final = 8000
_LOG_LEVELS: Final[dict[str, Level]] = {"warning": "warning", "error": "error"}


class LearnerCore:
    """All of a run's coordination, as the events that move it."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self._leases = Leases(run)
        self._pushes = Pushes(run, self._leases)
        self._autoscaler = Autoscaler(run)
        self._departures = Departures(run, self._leases)
        self._stacks = Stacks(run)
        self._liveness = Liveness(run, self._leases, self._departures, self._stacks)
        self._quarantine = Quarantine(run, self._departures)
        self.operator = Operator(run, self._leases, self._departures, self._quarantine, self._stacks)

    # What workers do.

    def join(self, request: learner_pb2.JoinRequest) -> WorkerSession:
        """Admit a worker: a new process, or one whose stream broke and which keeps the leases it still has.

        Raises:
            JoinDeniedError: it does not fit.
        """
        run = self.run
        try:
            check_worker(request, run.settings, run.sessions, run.excluded_hosts)
        except JoinDeniedError as error:
            run.refusals.add(error.reason, f"worker {request.worker_name[:64]!r}: {error}")
            raise
        session = run.sessions.named(request.worker_name)
        if session is not None and session.introduction.incarnation != request.incarnation:
            self._departures.expire(session, Goodbye.SUPERSEDED, "a newer process of this worker joined")
            session = None
        if session is None:
            session = run.sessions.open(request, run.clock())
            run.events.add("info", "worker_joined", f"{session.name} on {request.host} (pid {request.pid})")
            self._warn_of_other_device(session)
        else:
            session.rejoin(request, run.clock())
        session.held = {lane.lane: lane for lane in request.held}
        self._leases.resume(session)
        return session

    def attach(self, worker_id: str) -> int | None:
        """Open a session's stream in place of any earlier one.

        Returns:
            The stream's number, or None if the session has expired.
        """
        session = self.run.heard(worker_id)
        if session is None:
            return None
        session.streams += 1
        session.stream = session.streams
        if self.run.phase.final is not None:
            self._departures.dismiss(session)
            return session.stream
        self.run.send(session, letters.theta(self.run.ring.newest, self.run.settings.chunk_bytes))
        if session.draining:
            self.run.send(session, letters.drain("draining", 0.0))
        self._leases.rebalance(self.run.clock())
        return session.stream

    def detach(self, worker_id: str, stream: int) -> None:
        """Take note that a stream broke. The lanes stay for the lease's time to live."""
        session = self.run.sessions.get(worker_id)
        if session is None or session.stream != stream:
            return
        session.stream = None
        if self.run.phase.final is not None:
            self._departures.close(session, Goodbye.FINISHED, "")

    def heartbeat(self, worker_id: str, heartbeat: learner_pb2.Heartbeat) -> None:
        """Take a sign of life and answer it."""
        session = self.run.heard(worker_id)
        if session is not None:
            session.take_heartbeat(heartbeat)
            credits_left = self._leases.credits(worker_id)
            self.run.send(session, letters.heartbeat_ack(self.run.version, credits_left))

    def refuse_unread(self, worker_id: str, push: GradientEstimatorOut) -> bool:
        """Answer a push whose body is still to come, if it is of no use whatever that holds.

        Returns:
            Whether it was, so that the body need not be kept.
        """
        session = self.run.heard(worker_id)
        return session is None or self._pushes.refuse(session, push, Body())

    def push(self, worker_id: str, push: GradientEstimatorOut, body: Body) -> None:
        """Judge a push, keep it if it is good, and answer it."""
        session = self.run.heard(worker_id)
        if session is not None and not self._pushes.refuse(session, push, body):
            self._pushes.accept(session, push, body)

    def wants_snapshot(self, worker_id: str, snapshot: learner_pb2.Snapshot) -> bool:
        """Whether a snapshot is worth receiving.

        One that is here already is never replaced: checkpoints know its digest.
        """
        self.run.heard(worker_id)
        lane = self.run.lanes.leased(worker_id, snapshot.lane, snapshot.incarnation)
        return (
            lane is not None
            and snapshot.seq > 0
            and snapshot.seq not in lane.snapshots
            and 0 < snapshot.bytes <= self.run.settings.max_snapshot_bytes
        )

    def snapshot_stored(self, worker_id: str, incarnation: int, ref: SnapshotRef) -> bool:
        """Take note of a snapshot on disk; returns whether it counts: the lease may have ended meanwhile."""
        self.run.heard(worker_id)
        lane = self.run.lanes.leased(worker_id, ref.lane, incarnation)
        if lane is None:
            return False
        lane.snapshots[ref.seq] = ref
        self._trim_ring()
        return True

    def snapshot_corrupt(self, ref: SnapshotRef, detail: str) -> None:
        """Forget a snapshot that is no longer what was stored.

        In `sync` its lane can go on only from an older one whose thetas are still here. Otherwise only an
        earlier checkpoint, with its own ring, can mend the run: the learner must start again.
        """
        run = self.run
        lane = run.lanes[ref.lane]
        if lane.snapshots.pop(ref.seq, None) is None:
            return
        run.events.add("error", "snapshot_corrupt", detail)
        older = lane.newest_snapshot(lane.reached)
        if run.aggregation.exact_versions and run.ring.get(older.seq if older else 0) is None:
            run.broken = detail

    def return_lane(self, worker_id: str, message: learner_pb2.LaneReturn) -> None:
        """Take a lane back."""
        self.run.heard(worker_id)
        lane = self.run.lanes.leased(worker_id, message.lane, message.incarnation)
        if lane is None:
            return
        if not self.run.aggregation.exact_versions and message.seq in lane.snapshots:
            # Where gaps are allowed, a state that came back is worth more than the estimates that made it.
            lane.returned = max(lane.returned, message.seq)
        self.run.lanes.release(lane)
        text = f"lane {lane.number} at seq {message.seq}: {message.reason[:200]}"
        self.run.events.add("info", "lane_returned", text)
        self._leases.rebalance(self.run.clock())

    def lane_failed(self, worker_id: str, message: learner_pb2.LaneFailure) -> None:
        """Take note of an estimate that raised."""
        session = self.run.heard(worker_id)
        lane = self.run.lanes.leased(worker_id, message.lane, message.incarnation)
        if session is not None and lane is not None:
            self._quarantine.failed(session, lane, message)
            self._leases.rebalance(self.run.clock())

    def stack(self, worker_id: str, dump: learner_pb2.StackDump) -> None:
        """Take what the threads of a worker are doing."""
        session = self.run.heard(worker_id)
        if session is not None:
            self._stacks.take(session, dump.text)

    def log(self, worker_id: str, line: learner_pb2.LogLine) -> None:
        """Record what a worker wants people to know, up to a bound for each session."""
        session = self.run.heard(worker_id)
        if session is None or session.log_lines >= _LOG_LINES:
            return
        session.log_lines += 1
        if line.HasField("failure"):
            report, host = read_report(line.failure), session.introduction.host
            self.run.code_failures.add(report, session=worker_id, worker=session.name, host=host)
        level = _LOG_LEVELS.get(line.level, "info")
        self.run.events.add(level, "worker_log", f"{session.name}: {line.text[:_LOG_CHARACTERS]}")

    def leave(self, worker_id: str, reason: str, *, is_unfit: bool = False) -> None:
        """Let a worker go that says so, perhaps because it has found that it does not fit this run."""
        session = self.run.sessions.get(worker_id)
        if session is not None:
            if is_unfit:
                self.run.refusals.add(DenialReason.UNFIT_WORKER, f"{session.name}: {reason[:200]}")
            self._departures.close(session, Goodbye.DRAINED, reason)
            self.run.events.add("info", "worker_left", f"{session.name}: {reason[:200]}")

    # What time does.

    def tick(self) -> None:
        """Judge the workers: their silence, their progress and their number. Called a few times a second."""
        if self.run.phase.final is None:
            self._liveness.look()
            self._autoscaler.tick()
            self._leases.rebalance(self.run.clock())

    # What the update thread does.

    def ending(self) -> RunState | None:
        """Return how the run ends now, or None while it goes on."""
        run = self.run
        if run.checkpoint_health.given_up(run.clock()) and not run.applying:
            return RunState.FAILED
        return None if run.applying else run.phase.end(run.version, computing=run.computing)

    def batch_ready(self) -> bool:
        """Whether `take_batch` would return one."""
        return self.batch_due_in_s() == 0.0

    def batch_due_in_s(self) -> float | None:
        """Return in how long `batch_ready` holds by time alone, or None if something must happen first."""
        run = self.run
        if run.phase.paused or run.phase.final is not None or run.applying:
            return None
        return run.aggregation.due_in_s(run.buffer, run.version, run.clock())

    def take_batch(self) -> Batch | None:
        """Take the next update's batch out of the buffer, or None while there is none."""
        if not self.batch_ready():
            return None
        run = self.run
        batch = run.aggregation.select(run.buffer)
        run.buffer.take([item for item in batch if item is not None])
        run.applying = run.aggregation.weighed(batch, run.version)
        return run.applying

    def applied(self, outcome: Outcome) -> None:
        """Publish the version that the batch taken last has made."""
        run = self.run
        used = [item for item in run.applying if item is not None]
        run.applying = ()
        run.ring.publish(outcome.published)
        run.arrivals.began(run.version, run.clock())
        run.tally.applied(used, outcome, run.clock())
        run.phase.updated(run.version, outcome.effect)
        for number, seq, _ in (estimate for item in used for estimate in item.estimates):
            lane = run.lanes[number]
            lane.applied = max(lane.applied, seq)
        if self.ending() is None:  # else workers would begin estimates that nobody will use
            self._announce()
        for item in used:
            self._pushes.settle(item, learner_pb2.APPLIED)
        for item in run.buffer.drop(lambda waiting: run.aggregation.expired(waiting, run.version)):
            self._pushes.settle(item, learner_pb2.STALE, f"waited until theta was at {run.version}")
        self._report(outcome)
        self._trim_ring()

    def end(self, final: RunState) -> None:
        """Close the run, answer the pushes that no update will use, and say goodbye to everyone."""
        self.run.phase.final = final
        for item in self.run.buffer.drop(lambda waiting: True):
            self._pushes.settle(item, learner_pb2.CLOSED, f"the run is {final}; no update has used it")
        for session in self.run.sessions:
            self._departures.dismiss(session)
        level: Level = "error" if final in (RunState.FAILED, RunState.UNTRAINED) else "info"
        text = f"at outer step {self.run.version}, theta {self.run.ring.newest.sha256}"
        standstill = self.run.phase.standstill(self.run.version)
        text += f": theta {standstill}" * bool(standstill)
        self.run.events.add(level, final.lower(), text)

    # Under these.

    def _announce(self) -> None:
        announcement = letters.theta(self.run.ring.newest, self.run.settings.chunk_bytes)
        for session in self.run.sessions:
            self.run.send(session, announcement)

    def _report(self, outcome: Outcome) -> None:
        step = f"outer step {self.run.version}"
        if outcome.effect is Effect.EMPTY:
            text = f"{step}: no gradient had weight; theta stays as it was"
            self.run.events.add("warning", "empty_update", text)
        if outcome.effect is Effect.REVERTED:
            text = f"{step}: theta or the outer optimizer's state would not have stayed finite: refused"
            self.run.events.add("error", "reverted_update", text)

    def _trim_ring(self) -> None:
        run = self.run
        recent = run.version - _RECENT_VERSIONS
        exact = run.aggregation.exact_versions
        run.ring.trim(min(recent, run.lanes.oldest_restart()) if exact else recent)

    def _warn_of_other_device(self, session: WorkerSession) -> None:
        kind = session.introduction.device_kind
        others = {other.introduction.device_kind for other in self.run.sessions} - {kind, ""}
        if kind and others and self.run.aggregation.exact_versions:
            text = f"{session.name} computes on {kind!r}, others on {sorted(others)}: theta depends on both"
            self.run.events.add("warning", "mixed_devices", text)
