"""The state of a run: what a checkpoint saves, the current workers, and telemetry."""

import dataclasses
import time
from collections.abc import Callable
from typing import Final, Self

from learner.scale import Scale
from learner.settings import LearnerSettings
from learner.state.aggregation import Aggregation, Batch, aggregation_of
from learner.state.arrivals import ArrivalTimes
from learner.state.buffer import GradientBuffer
from learner.state.code_failures import CodeFailures
from learner.state.counters import Counters
from learner.state.failures import FailureLog
from learner.state.lanes import Lane, LaneTable
from learner.state.run_state import RunControl, RunState
from learner.state.sessions import WorkerSession
from learner.state.supervision import Supervision
from learner.state.throughput import Throughput
from learner.storage.checkpoint_store import CheckpointFile, CheckpointHealth
from learner.storage.events import EventLog, Level
from learner.storage.thetas import ThetaHistory
from learner.storage.update_record import Outcome
from protos.rpc.denials import Denials
from protos.rpc.sessions import SessionTable
from protos.unspool.v1.common_pb2 import Schema
from unspool.types import PyTree

_RECENT_THETAS: Final = 4  # a worker may still be fetching a theta that was announced earlier


@dataclasses.dataclass
class Telemetry:
    """The information about a run that only people and monitoring read.

    Attributes:
        events: the event log.
        counters: counts and rates.
        code_failures: the exceptions that ended workers.
        supervision: the last report of the workers' supervisor.
        denials: counts of callers that were denied access.
        endpoints: the learner's addresses, by server name.
        problems: problems that need attention, by subject.
    """

    events: EventLog
    counters: Counters
    code_failures: CodeFailures
    supervision: Supervision
    denials: Denials = dataclasses.field(default_factory=Denials)
    endpoints: dict[str, str] = dataclasses.field(default_factory=dict)
    problems: dict[str, str] = dataclasses.field(default_factory=dict)

    @classmethod
    def of(cls, events: EventLog, counters: Counters, clock: Callable[[], float]) -> Self:
        """Return the telemetry of a starting learner process; `clock` returns monotonic seconds."""
        return cls(events, counters, CodeFailures(clock), Supervision(clock))


@dataclasses.dataclass
class Run:
    """The state of a run, in independent parts.

    A checkpoint saves `lanes`, `thetas`, `theta`, `learner_state`, and some values of the counters and of
    `control`. `sessions`, `buffer`, `arrivals`, `throughput`, `failures` and `excluded_hosts` start empty in
    each learner process and are rebuilt as workers join. `telemetry` is read only by people and monitoring.

    Attributes (the classes of the others describe them):
        schema: the schema of a gradient.
        term: the fencing number of this learner process; later processes have larger terms.
        theta: the newest theta, as a tree.
        learner_state: the outer optimizer's state.
        clock: returns monotonic seconds.
        wall_clock: returns Unix time in seconds.
        applying: the batch that is being applied; empty between updates.
        broken: why this process cannot continue and must not save anything; empty while it can.
        excluded_hosts: the reason for each excluded host, by host.
        checkpoint: the last written checkpoint and its time on `clock`, or None.
    """

    settings: LearnerSettings
    schema: Schema
    term: int
    lanes: LaneTable
    thetas: ThetaHistory
    theta: PyTree
    learner_state: PyTree
    telemetry: Telemetry
    clock: Callable[[], float]
    wall_clock: Callable[[], float] = time.time
    applying: Batch = ()
    broken: str = ""
    checkpoint: tuple[CheckpointFile, float] | None = None
    sessions: SessionTable[WorkerSession] = dataclasses.field(
        default_factory=lambda: SessionTable(WorkerSession)
    )
    failures: FailureLog = dataclasses.field(default_factory=FailureLog)
    excluded_hosts: dict[str, str] = dataclasses.field(default_factory=dict)
    scale: Scale = dataclasses.field(init=False)
    buffer: GradientBuffer = dataclasses.field(init=False)
    arrivals: ArrivalTimes = dataclasses.field(init=False)
    throughput: Throughput = dataclasses.field(init=False)
    aggregation: Aggregation = dataclasses.field(init=False)
    checkpoint_health: CheckpointHealth = dataclasses.field(init=False)
    control: RunControl = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        self.scale = self.settings.workers.scale
        self.buffer = GradientBuffer(self.settings.buffer_items)
        self.throughput = Throughput(len(self.settings.experiment.estimators))
        self.arrivals = ArrivalTimes(self.settings.experiment.lanes, self.settings.liveness.lease_ttl_s)
        self.aggregation = aggregation_of(self.settings.aggregation, self.arrivals, self.lanes.quarantined)
        self.control = RunControl(self.settings.experiment.outer_steps)
        self.checkpoint_health = CheckpointHealth(self.settings.checkpoint.give_up_s)

    @property
    def outer_step(self) -> int:
        """The number of outer updates that led to the current theta."""
        return self.thetas.newest.outer_step

    @property
    def state(self) -> RunState:
        """The run's state, as status shows it."""
        state = self.control.state(sum(session.stream is not None for session in self.sessions))
        is_degraded = state is RunState.RUNNING and self.checkpoint_health.is_failing
        return RunState.DEGRADED if is_degraded else state

    @property
    def blocked(self) -> str:
        """Why no update is possible until lanes leave quarantine; empty if one is."""
        quarantined = len(self.lanes.quarantined())
        if not quarantined:
            return ""
        working = len(self.lanes) - quarantined
        match self.settings.aggregation.mode:
            case "sync":
                is_blocked = True
            case "quorum":
                is_blocked = not working
            case "async":
                reachable = working * self.settings.aggregation.credits_per_lane
                is_blocked = reachable < self.settings.aggregation.batch_size
        return f"{quarantined} of {len(self.lanes)} lanes to leave quarantine" if is_blocked else ""

    @property
    def merges(self) -> bool:
        """Whether a push may be a mean of several estimates; only `async` leaves their order open."""
        return self.settings.aggregation.mode == "async"

    @property
    def computing(self) -> bool:
        """Whether any worker can work on the current outer step."""
        return not self.blocked and any(
            session.stream is not None and self.lanes.held_by(session.session_id) for session in self.sessions
        )

    def holder(self, lane: Lane) -> WorkerSession | None:
        """Return the session that leases a lane, or None."""
        return self.sessions.get(lane.holder) if lane.holder else None

    def report(self, level: Level, kind: str, text: str) -> None:
        """Record an event."""
        self.telemetry.events.add(level, kind, text)

    def sender(self, session_id: str) -> WorkerSession | None:
        """Return the session that sent a message and update its last activity; None if it has expired."""
        session = self.sessions.get(session_id)
        if session is not None:
            session.last_message_s = self.clock()
        return session

    def publish(self, outcome: Outcome) -> None:
        """Make the theta of an update the current theta."""
        self.thetas.publish(outcome.published)
        self.theta, self.learner_state = outcome.theta, outcome.learner_state
        self.arrivals.began(self.outer_step, self.clock())
        self.control.updated(self.outer_step, outcome.effect)

    def trim_thetas(self) -> None:
        """Discard the thetas that no fetch and no replay can need anymore."""
        recent = self.outer_step - _RECENT_THETAS
        exact = self.aggregation.exact_steps
        self.thetas.trim(min(recent, self.lanes.oldest_restart()) if exact else recent)
