"""A run as the learner knows it: the parts that every one of its rules reads or moves."""

import dataclasses
from collections.abc import Callable

from learner.aggregation import Aggregation, Batch, aggregation_of
from learner.buffer import GradientBuffer
from learner.checkpoint_store import CheckpointFile
from learner.events import EventLog
from learner.lanes import LaneTable
from learner.letters import Mail
from learner.phase import RunPhase, RunState
from learner.refusals import Refusals
from learner.ring import ThetaRing
from learner.sessions import SessionTable, WorkerSession
from learner.settings import LearnerSettings
from learner.tally import Tally
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
        workers_desired: how many workers the operator wants.
        refusals: who was not let in.
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
    applying: Batch = ()
    broken: str = ""
    checkpoint: tuple[CheckpointFile, float] | None = None
    endpoints: dict[str, str] = dataclasses.field(default_factory=dict)
    problems: dict[str, str] = dataclasses.field(default_factory=dict)
    sessions: SessionTable = dataclasses.field(default_factory=SessionTable)
    refusals: Refusals = dataclasses.field(default_factory=Refusals)
    mail: Mail = dataclasses.field(default_factory=Mail)
    buffer: GradientBuffer = dataclasses.field(init=False)
    aggregation: Aggregation = dataclasses.field(init=False)
    phase: RunPhase = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        self.buffer = GradientBuffer(self.settings.buffer_items)
        self.aggregation = aggregation_of(self.settings)
        self.phase = RunPhase(self.settings.experiment.outer_steps)

    @property
    def version(self) -> int:
        """Outer updates behind theta."""
        return self.ring.newest.version

    @property
    def state(self) -> RunState:
        """What the run is doing."""
        return self.phase.state(sum(session.stream is not None for session in self.sessions))

    @property
    def computing(self) -> bool:
        """Whether anybody can work on the running outer step."""
        return any(
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
