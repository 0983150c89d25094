"""A run as the learner knows it: the parts that every one of its rules reads or moves."""

import dataclasses
from collections.abc import Callable

from learner.aggregation import Aggregation, Batch, aggregation_of
from learner.arrivals import ArrivalTimes
from learner.buffer import GradientBuffer
from learner.checkpoint_health import CheckpointHealth
from learner.checkpoint_store import CheckpointFile
from learner.code_failures import CodeFailures
from learner.events import EventLog
from learner.failures import FailureLog
from learner.lanes import LaneTable
from learner.letters import Mail
from learner.pace import Paces
from learner.phase import RunPhase, RunState
from learner.ring import ThetaRing
from learner.scale import WorkerRange
from learner.sessions import WorkerSession
from learner.settings import LearnerSettings
from learner.supervision import Supervision
from learner.tally import Tally
from protos.rpc.denials import Denials
from protos.rpc.sessions import SessionTable
from protos.unspool.v1.learner_pb2 import LearnerMessage


@dataclasses.dataclass
class Run:
    """The state of a run, in parts that do not know each other.

    Attributes:
        settings: what the learner was told.
        epoch: which life of the learner this is.
        lanes: from a checkpoint, as `ring`; everything below is rebuilt by workers that join.
        ring: published thetas.
        events: what happened, in words.
        tally: what is counted.
        clock: monotonic seconds.
        broken: why this life of the learner cannot go on, and must save nothing more; empty while it can.
        endpoints: where the learner listens, by name.
        checkpoint: the last one that was written, and when (on `clock`), or None.
        problems: what a person should look at, by what it concerns.
        workers_desired: how many workers are wanted.
        workers_range: within which the run moves that number itself, or None if only the operator does.
        refusals: who was not let in.
        failures: what estimates failed with.
        code_failures: what workers ended with, for people.
        supervision: what the supervisor of the workers says.
        excluded_hosts: why workers of a host are refused, by host; in this life of the learner.
        applying: the batch that is being made into the next theta; empty between updates.
    """

    settings: LearnerSettings
    epoch: int
    lanes: LaneTable
    ring: ThetaRing
    events: EventLog
    tally: Tally
    clock: Callable[[], float]
    workers_desired: int
    workers_range: WorkerRange | None = None
    applying: Batch = ()
    broken: str = ""
    checkpoint: tuple[CheckpointFile, float] | None = None
    endpoints: dict[str, str] = dataclasses.field(default_factory=dict)
    problems: dict[str, str] = dataclasses.field(default_factory=dict)
    sessions: SessionTable[WorkerSession] = dataclasses.field(
        default_factory=lambda: SessionTable(WorkerSession)
    )
    refusals: Denials = dataclasses.field(default_factory=Denials)
    failures: FailureLog = dataclasses.field(default_factory=FailureLog)
    excluded_hosts: dict[str, str] = dataclasses.field(default_factory=dict)
    mail: Mail = dataclasses.field(default_factory=Mail)
    buffer: GradientBuffer = dataclasses.field(init=False)
    arrivals: ArrivalTimes = dataclasses.field(init=False)
    paces: Paces = dataclasses.field(init=False)
    aggregation: Aggregation = dataclasses.field(init=False)
    checkpoint_health: CheckpointHealth = dataclasses.field(init=False)
    phase: RunPhase = dataclasses.field(init=False)
    code_failures: CodeFailures = dataclasses.field(init=False)
    supervision: Supervision = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        self.code_failures = CodeFailures(self.clock)
        self.supervision = Supervision(self.clock)
        self.buffer = GradientBuffer(self.settings.buffer_items)
        self.paces = Paces(len(self.settings.experiment.estimators))
        self.arrivals = ArrivalTimes(self.settings.experiment.lanes, self.settings.liveness.lease_ttl_s)
        self.aggregation = aggregation_of(self.settings, self.arrivals, self._absent_lanes)
        self.phase = RunPhase(self.settings.experiment.outer_steps)
        self.checkpoint_health = CheckpointHealth(self.settings.checkpoint.give_up_s)

    def _absent_lanes(self) -> set[int]:
        return {lane.number for lane in self.lanes.quarantined()}

    @property
    def version(self) -> int:
        """Outer updates behind theta."""
        return self.ring.newest.version

    @property
    def state(self) -> RunState:
        """What the run is doing."""
        state = self.phase.state(sum(session.stream is not None for session in self.sessions))
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
        """Whether anybody can work on the running outer step."""
        return not self.blocked and any(
            session.stream is not None and self.lanes.held_by(session.worker_id) for session in self.sessions
        )

    def heard(self, worker_id: str) -> WorkerSession | None:
        """Return the session that a message came from, and note that it lives; None if it expired."""
        session = self.sessions.get(worker_id)
        if session is not None:
            session.last_heard_s = self.clock()
        return session

    def send(self, session: WorkerSession, message: LearnerMessage) -> None:
        """Write to a worker. What one without a stream misses, it is told again when it opens one."""
        if session.stream is not None:
            self.mail.send(session.worker_id, message)
