"""The state of a run: what a checkpoint keeps, who works on it now, and what people are told of it."""

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
from learner.state.lanes import LaneTable
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

_RECENT_THETAS: Final = 4  # a worker may still be fetching a theta that was the newest when it was announced


@dataclasses.dataclass
class Telemetry:
    """What people are told of a run.

    Attributes:
        events: what happened, in words.
        counters: what is counted.
        code_failures: the exceptions that workers ended with.
        supervision: what the supervisor of the workers reports.
        denials: callers that were denied access.
        endpoints: where the learner listens, by name.
        problems: what a person should look at, by what it concerns.
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
        """Return the telemetry of a learner process that starts; `clock` is in monotonic seconds."""
        return cls(events, counters, CodeFailures(clock), Supervision(clock))


@dataclasses.dataclass
class Run:
    """The state of a run, in parts that do not know each other.

    A checkpoint keeps `lanes`, `thetas`, `theta`, `learner_state`, and figures of the counters and of
    `control`. The workers that join rebuild `sessions`, `buffer`, `arrivals`, `throughput`, `failures` and
    `excluded_hosts`, which start empty with each learner process. What only people read is in `telemetry`.

    Attributes:
        settings: what the learner was started with.
        schema: what a gradient looks like.
        term: number of this learner process; later ones have larger terms.
        lanes: how far each is.
        thetas: the published ones.
        theta: the newest, as a tree.
        learner_state: of the outer optimizer.
        telemetry: what people are told; the clock below is its clock, too.
        clock: monotonic seconds.
        wall_clock: Unix time in seconds.
        scale: how many workers are wanted, and the range within which the run itself changes that.
        applying: the batch that is being made into the next theta; empty between updates.
        broken: why this process cannot continue, and must save nothing more; empty while it can.
        control: whether the run moves, stands still or ends.
        aggregation: when theta moves and by which gradients.
        buffer: pushes that wait for an update.
        sessions: of workers.
        arrivals: when gradients arrive after their theta.
        throughput: how fast each worker is.
        failures: what estimates failed with.
        excluded_hosts: why workers of a host are refused, by host.
        checkpoint: the last one that was written, and when (on `clock`), or None.
        checkpoint_health: whether checkpoints reach the disk.
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
        self.aggregation = aggregation_of(self.settings, self.arrivals, self._absent_lanes)
        self.control = RunControl(self.settings.experiment.outer_steps)
        self.checkpoint_health = CheckpointHealth(self.settings.checkpoint.give_up_s)

    def _absent_lanes(self) -> set[int]:
        return {lane.number for lane in self.lanes.quarantined()}

    @property
    def outer_step(self) -> int:
        """Outer updates behind theta."""
        return self.thetas.newest.outer_step

    @property
    def state(self) -> RunState:
        """What the run is doing."""
        state = self.control.state(sum(session.stream is not None for session in self.sessions))
        is_degraded = state is RunState.RUNNING and self.checkpoint_health.is_failing
        return RunState.DEGRADED if is_degraded else state

    @property
    def blocked(self) -> str:
        """Why no further update can come until lanes are out of quarantine; empty if one can."""
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
                is_blocked = (
                    working * self.settings.aggregation.credits_per_lane
                    < self.settings.aggregation.batch_size
                )
        return f"{quarantined} of {len(self.lanes)} lanes to leave quarantine" if is_blocked else ""

    @property
    def merges(self) -> bool:
        """Whether a push may be the mean of several estimates; where their order decides bits, it may not."""
        return self.settings.aggregation.mode == "async"

    @property
    def computing(self) -> bool:
        """Whether any worker can work on the current outer step."""
        return not self.blocked and any(
            session.stream is not None and self.lanes.held_by(session.worker_id) for session in self.sessions
        )

    def report(self, level: Level, kind: str, text: str) -> None:
        """Record an event."""
        self.telemetry.events.add(level, kind, text)

    def heard(self, worker_id: str) -> WorkerSession | None:
        """Return the session that a message came from, and record that it lives; None if it expired."""
        session = self.sessions.get(worker_id)
        if session is not None:
            session.last_heard_s = self.clock()
        return session

    def publish(self, outcome: Outcome) -> None:
        """Make the theta of an update the current one."""
        self.thetas.publish(outcome.published)
        self.theta, self.learner_state = outcome.theta, outcome.learner_state
        self.arrivals.began(self.outer_step, self.clock())
        self.control.updated(self.outer_step, outcome.effect)

    def trim_thetas(self) -> None:
        """Forget the thetas that no worker fetches and no replay needs any more."""
        recent = self.outer_step - _RECENT_THETAS
        exact = self.aggregation.exact_versions
        self.thetas.trim(min(recent, self.lanes.oldest_restart()) if exact else recent)
