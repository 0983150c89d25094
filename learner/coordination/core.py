"""The learner without its transport: one method for each message, query and timer tick.

The core has no thread, no socket and no clock of its own. Every public method holds the core's lock, so any
thread may call it. The methods for pushes, updates, checkpoints and admin commands are in its attributes.
"""

from collections.abc import Callable
from typing import Final

from learner.coordination.admin import Admin
from learner.coordination.admission import check_worker
from learner.coordination.autoscale import Autoscaler
from learner.coordination.checkpointing import Checkpoints
from learner.coordination.core_lock import CoreLock, LockedCommands, locked
from learner.coordination.leases import Leases
from learner.coordination.liveness import Liveness
from learner.coordination.pushes import Pushes
from learner.coordination.quarantine import Quarantine
from learner.coordination.stacks import Stacks
from learner.coordination.status import build_status
from learner.coordination.updates import Updates
from learner.scale import Scale
from learner.settings import LearnerSettings
from learner.state import messages
from learner.state.code_failures import read_report
from learner.state.run import Run
from learner.state.sessions import WorkerSession
from learner.storage.events import EventLog, Level
from learner.storage.snapshots import SnapshotRef
from learner.storage.thetas import Published
from protos.rpc.connection import PROTOCOL
from protos.rpc.denials import DenialReason
from protos.rpc.send_queue import SendQueue
from protos.rpc.session_host import JoinDeniedError
from protos.unspool.v1 import admin_pb2, learner_pb2
from protos.unspool.v1.common_pb2 import Schema
from protos.unspool.v1.learner_pb2 import Drain, Goodbye, HeartbeatAck, LearnerMessage

_LOG_LINES: Final = 1000  # limits of a session's log lines, so that a worker cannot flood the event log
_LOG_CHARACTERS: Final = 8000
_LOG_LEVELS: Final[dict[str, Level]] = {"warning": "warning", "error": "error"}
_SNAPSHOTS: Final = "snapshots"


class LearnerCore(LockedCommands):
    """The coordination of a run.

    Attributes:
        events: the event log, which is thread-safe.
        pushes: takes the workers' pushes.
        updates: serves the update thread.
        checkpoints: serves the threads that make and write checkpoints.
        admin: executes admin commands.

    Args:
        run: the state; only the core may change it from now on.
        remember_scale: persists a scale command; may raise OSError.
    """

    def __init__(self, run: Run, remember_scale: Callable[[Scale], None] = lambda wanted: None) -> None:
        super().__init__(CoreLock())
        self._run = run
        self._leases = Leases(run)
        self._quarantine = Quarantine(run, self._leases)
        self._autoscaler = Autoscaler(run)
        self._stacks = Stacks(run)
        self._liveness = Liveness(run, self._leases, self._stacks)
        self.events: EventLog = run.telemetry.events
        self.pushes = Pushes(self._lock, run, self._leases, self._quarantine)
        self.checkpoints = Checkpoints(self._lock, run)
        self.updates = Updates(self._lock, run, self._leases, self.pushes, self.checkpoints)
        self.admin = Admin(
            self._lock, run, self._leases, self._quarantine, self._stacks, self.checkpoints, remember_scale
        )

    @property
    def settings(self) -> LearnerSettings:
        """The learner's settings."""
        return self._run.settings

    @property
    def schema(self) -> Schema:
        """The schema of a gradient."""
        return self._run.schema

    # Worker sessions.

    @locked
    def join(self, request: learner_pb2.JoinRequest) -> learner_pb2.JoinReply:
        """Admit a new worker process, or one that reconnects and keeps the leases it still has.

        Raises:
            JoinDeniedError: the worker may not join.
        """
        run = self._run
        try:
            check_worker(request, run.settings, run.sessions, run.excluded_hosts)
        except JoinDeniedError as error:
            run.telemetry.denials.add(error.reason, f"worker {request.worker_name[:64]!r}: {error}")
            raise
        session = run.sessions.named(request.worker_name)
        if session is not None and session.join_request.process_uuid != request.process_uuid:
            self._leases.expire(session, Goodbye.SUPERSEDED, "a newer process of this worker joined")
            session = None
        if session is None:
            session = run.sessions.open(request, run.clock())
            run.report("info", "worker_joined", f"{session.name} on {request.host} (pid {request.pid})")
            self._warn_of_other_device(session)
        else:
            session.rejoin(request, run.clock())
        session.note_held(request.held)
        self._leases.resume(session)
        return self._join_reply(session)

    @locked
    def attach(self, secret: str, peer: str = "") -> tuple[str, SendQueue] | None:
        """Open the stream of the session whose last Join returned `secret`; it replaces an earlier stream.

        Returns:
            The session's id and the stream's send queue; None if no session has this secret, which counts
            as a denial of `peer`.
        """
        session = self._run.sessions.with_secret(secret)
        if session is None:
            self._run.telemetry.denials.add(DenialReason.NO_SESSION, f"a stream of {peer} without a Join")
            return None
        stream = session.open_stream(self._run.clock())
        session.has_connected = True
        if self._run.control.final is not None:
            self._leases.send_outcome(session)
            return session.session_id, stream
        session.send(messages.theta(self._run.thetas.newest, self._run.settings.chunk_bytes))
        if session.draining:
            session.send(LearnerMessage(drain=Drain(reason="draining")))
        self._leases.rebalance(self._run.clock())
        return session.session_id, stream

    @locked
    def detach(self, session_id: str, stream: SendQueue) -> None:
        """Close a broken stream. The worker keeps its lanes for the lease's time to live."""
        stream.close()
        if stream.overflowed:
            self._run.report("warning", "worker_cut_off", f"{session_id}: does not read its messages")
        session = self._run.sessions.get(session_id)
        if session is None or session.stream is not stream:
            return
        session.stream = None
        if self._run.control.final is not None:
            self._leases.close(session, Goodbye.FINISHED, "")

    @locked
    def leave(self, session_id: str, reason: str, *, is_unfit: bool = False) -> None:
        """End a session at the worker's request; `is_unfit` if the worker does not fit this run."""
        session = self._run.sessions.get(session_id)
        if session is not None:
            if is_unfit:
                self._run.telemetry.denials.add(DenialReason.UNFIT_WORKER, f"{session.name}: {reason[:200]}")
            self._leases.close(session, Goodbye.DRAINED, reason)
            self._run.report("info", "worker_left", f"{session.name}: {reason[:200]}")

    @locked
    def hang_up(self) -> None:
        """Close every stream after its queued messages have been sent."""
        for session in self._run.sessions:
            if session.stream is not None:
                session.stream.close()

    # Messages from workers.

    @locked
    def heartbeat(self, session_id: str, heartbeat: learner_pb2.Heartbeat) -> None:
        """Store a heartbeat and acknowledge it."""
        session = self._run.sender(session_id)
        if session is not None:
            session.take_heartbeat(heartbeat)
            ack = HeartbeatAck(outer_step=self._run.outer_step, credits=self._leases.credits(session_id))
            session.send(LearnerMessage(heartbeat_ack=ack))

    @locked
    def wants_snapshot(self, session_id: str, snapshot: learner_pb2.Snapshot) -> bool:
        """Return whether to receive a snapshot.

        A stored snapshot is never replaced, because checkpoints refer to it by its digest.
        """
        self._run.sender(session_id)
        lane = self._run.lanes.leased(session_id, snapshot.lane, snapshot.fencing_token)
        return (
            lane is not None
            and snapshot.seq > 0
            and snapshot.seq not in lane.snapshots
            and 0 < snapshot.bytes <= self._run.settings.max_snapshot_bytes
        )

    @locked
    def snapshot_stored(self, session_id: str, fencing_token: int, ref: SnapshotRef) -> bool:
        """Record a snapshot that is on disk; return False if its lease has ended in between."""
        self._run.telemetry.problems.pop(_SNAPSHOTS, None)
        self._run.sender(session_id)
        lane = self._run.lanes.leased(session_id, ref.lane, fencing_token)
        if lane is None:
            return False
        lane.snapshots[ref.seq] = ref
        self._run.trim_thetas()
        return True

    @locked
    def snapshot_lost(self, session_id: str, error: Exception) -> None:
        """Record that a snapshot could not be stored; an OSError is reported as a disk problem of the run."""
        self._run.report("warning", "snapshot_lost", f"{session_id}: {error}")
        if isinstance(error, OSError):
            self._run.telemetry.problems[_SNAPSHOTS] = f"could not be written: {error}"

    @locked
    def return_lane(self, session_id: str, message: learner_pb2.LaneReturn) -> None:
        """End the lease of a lane that a worker returns."""
        self._run.sender(session_id)
        lane = self._run.lanes.leased(session_id, message.lane, message.fencing_token)
        if lane is None:
            return
        if not self._run.aggregation.exact_steps and message.seq in lane.snapshots:
            # If gaps are allowed, the returned state is kept even if its last estimates were not accepted.
            lane.returned = max(lane.returned, message.seq)
        self._run.lanes.release(lane)
        text = f"lane {lane.number} at seq {message.seq}: {message.reason[:200]}"
        self._run.report("info", "lane_returned", text)
        self._leases.rebalance(self._run.clock())

    @locked
    def lane_failed(self, session_id: str, message: learner_pb2.LaneFailure) -> None:
        """Record an estimate that raised an exception."""
        session = self._run.sender(session_id)
        lane = self._run.lanes.leased(session_id, message.lane, message.fencing_token)
        if session is not None and lane is not None:
            self._quarantine.failed(session, lane, message)
            self._leases.rebalance(self._run.clock())

    @locked
    def stack(self, session_id: str, dump: learner_pb2.StackDump) -> None:
        """Handle a worker's stack dump."""
        session = self._run.sender(session_id)
        if session is not None:
            self._stacks.take(session, dump.text)

    @locked
    def log(self, session_id: str, line: learner_pb2.LogLine) -> None:
        """Record a worker's log line, up to a maximum number per session."""
        session = self._run.sender(session_id)
        if session is None or session.log_lines >= _LOG_LINES:
            return
        session.log_lines += 1
        if line.HasField("failure"):
            self._run.telemetry.code_failures.add(read_report(line.failure), session)
        level = _LOG_LEVELS.get(line.level, "info")
        self._run.report(level, "worker_log", f"{session.name}: {line.text[:_LOG_CHARACTERS]}")

    # Queries of the servers.

    @locked
    def status(self) -> admin_pb2.Status:
        """Return the run's status."""
        return build_status(self._run)

    @locked
    def staleness_counts(self) -> dict[int, int]:
        """Return the number of gradients that this process applied, by staleness."""
        return dict(self._run.telemetry.counters.staleness)

    @locked
    def not_ready(self) -> list[str]:
        """Return the problems that prevent serving workers or writing checkpoints."""
        reasons = [f"{about}: {problem}" for about, problem in self._run.telemetry.problems.items()]
        if self._run.control.final is not None:
            reasons.append(f"the run is {self._run.state}")
        return reasons

    @locked
    def theta(self, outer_step: int) -> Published:
        """Return the theta of an outer step.

        Raises:
            KeyError: this theta is not kept.
        """
        published = self._run.thetas.get(outer_step)
        if published is None:
            raise KeyError(f"theta {outer_step} is not kept; the newest is {self._run.outer_step}")
        return published

    @locked
    def snapshot(self, lane: int, seq: int) -> SnapshotRef | None:
        """Return the snapshot of a lane at `seq`, or None."""
        return self._run.lanes[lane].snapshots.get(seq) if lane < len(self._run.lanes) else None

    @locked
    def snapshot_corrupt(self, ref: SnapshotRef, detail: str) -> None:
        """Discard a snapshot whose file is corrupt.

        In `sync`, its lane can continue only from an older snapshot whose thetas are still kept. If these are
        gone, only an earlier checkpoint, with its own thetas, can repair the run: the learner must restart.
        """
        run = self._run
        lane = run.lanes[ref.lane]
        if lane.snapshots.pop(ref.seq, None) is None:
            return
        run.report("error", "snapshot_corrupt", detail)
        older = lane.newest_snapshot(lane.reached)
        if run.aggregation.exact_steps and run.thetas.get(older.seq if older else 0) is None:
            run.broken = detail

    def responds(self, timeout_s: float) -> bool:
        """Return whether the core's lock can be acquired, so that no thread hangs while it holds it."""
        return self._lock.is_free(timeout_s)

    # Calls of the learner process.

    @locked
    def tick(self) -> None:
        """Check the workers' liveness, progress and number. Called several times a second."""
        if self._run.control.final is None:
            self._liveness.check()
            self._autoscaler.tick()
            self._leases.rebalance(self._run.clock())

    @locked
    def listening(self, endpoints: dict[str, str]) -> None:
        """Record the learner's endpoints, by server name."""
        self._run.telemetry.endpoints = endpoints
        listed = ", ".join(f"{server} {address}" for server, address in endpoints.items())
        text = f"term {self._run.term} at outer step {self._run.outer_step}; {listed}"
        self._run.report("info", "learner_started", text)

    @locked
    def crashed(self, error: BaseException, *, is_fenced: bool) -> None:
        """Record that `error` ended the update thread; `is_fenced` if another learner has taken over."""
        self._run.report("error", "learner_crashed", repr(error))
        self._run.broken = self._run.broken or repr(error)
        goodbye = Goodbye(reason=Goodbye.EXPIRED, detail="another learner has taken over; join it")
        for session in self._run.sessions if is_fenced else ():
            session.send(LearnerMessage(goodbye=goodbye))

    def _join_reply(self, session: WorkerSession) -> learner_pb2.JoinReply:
        run, settings = self._run, self._run.settings
        return learner_pb2.JoinReply(
            protocol=PROTOCOL,
            run_id=settings.run_id,
            term=run.term,
            session_id=session.session_id,
            session_secret=session.secret,
            heartbeat_s=settings.liveness.heartbeat_s,
            orphan_ttl_s=settings.liveness.orphan_ttl_s,
            chunk_bytes=settings.chunk_bytes,
            schema=run.schema,
            experiment_toml=settings.experiment_toml,
            outer_step=run.outer_step,
            lanes_total=len(run.lanes),
            snapshot_every=settings.checkpoint.every,
            exact_steps=run.aggregation.exact_steps,
            merges=run.merges,
            lease_ttl_s=settings.liveness.lease_ttl_s,
        )

    def _warn_of_other_device(self, session: WorkerSession) -> None:
        kind = session.join_request.device_kind
        others = {other.join_request.device_kind for other in self._run.sessions} - {kind, ""}
        if kind and others and self._run.aggregation.exact_steps:
            text = f"{session.name} computes on {kind!r}, others on {sorted(others)}: theta depends on both"
            self._run.report("warning", "mixed_devices", text)
