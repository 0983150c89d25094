"""Builders of learner components for tests: small, fast, and on a manual clock."""

import contextlib
import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from learner.coordination.core import LearnerCore
from learner.coordination.pushes import Body
from learner.listening import ListenTable, TlsTable
from learner.scale import Scale
from learner.servers.worker_service import LearnerHost
from learner.settings import LearnerSettings
from learner.state.counters import Counters
from learner.state.lanes import LaneTable
from learner.state.run import Run, Telemetry
from learner.state.sessions import WorkerSession
from learner.storage.events import EventLog
from learner.storage.snapshots import SnapshotStore
from learner.storage.thetas import Published, ThetaHistory
from learner.storage.update_record import Effect, Outcome
from learner.tables import AggregationTable, CheckpointTable, LivenessTable, WorkersTable
from protos import codec
from protos.rpc.access import Tokens
from protos.rpc.send_queue import SendQueue
from protos.rpc.stream_reader import StreamReader
from protos.unspool.v1 import learner_pb2
from protos.unspool.v1.learner_pb2 import GradientEstimatorOut, LearnerMessage
from tests.support.clock import Clock
from tests.support.experiments import QUADRATIC, toml_of
from unspool.experiment import Experiment

EXPERIMENT_TOML = toml_of(QUADRATIC)
EXPERIMENT = Experiment.from_toml(EXPERIMENT_TOML)
THETA_SHAPE = EXPERIMENT.theta_shape()
SCHEMA = codec.schema_of(THETA_SHAPE)
BODY_BYTES = codec.body_bytes(SCHEMA)


TOKENS = Tokens(admin="secret-token", worker="workers-token", viewer="viewers-token")


OPENED = contextlib.ExitStack()
"""Closes the files that builders have opened; a fixture does so after each test."""

THETA = {"w": np.zeros(2, np.float32)}
LEARNER_STATE = {"count": np.zeros((), np.int32)}


class WatchedCore(LearnerCore):
    """A core that exposes its state to tests."""

    def __init__(self, run: Run, remember_scale: Callable[[Scale], None] = lambda wanted: None) -> None:
        super().__init__(run, remember_scale)
        self.run = run


_TABLES: dict[str, Any] = {
    "aggregation": AggregationTable,
    "workers": WorkersTable,
    "listen": ListenTable,
    "tls": TlsTable,
    "checkpoint": CheckpointTable,
    "liveness": LivenessTable,
}


def settings_of(**values: Any) -> LearnerSettings:
    """Return settings with each value in the table that has a field of its name."""
    tables = {}
    for name, table in _TABLES.items():
        keys = [field.name for field in dataclasses.fields(table) if field.name in values]
        tables[name] = table(**{key: values.pop(key) for key in keys})
    return LearnerSettings(**values, **tables)


def make_settings(run_dir: Path, **changes: Any) -> LearnerSettings:
    """Return settings for three lanes in `sync`, on ports that the system picks."""
    lanes = changes.get("lanes", EXPERIMENT.lanes)
    outer_steps = changes.pop("outer_steps", EXPERIMENT.outer_steps)
    values: dict[str, Any] = {
        "run_dir": run_dir,
        "run_id": "test-run",
        "experiment": dataclasses.replace(EXPERIMENT, lanes=lanes, outer_steps=outer_steps),
        "experiment_toml": EXPERIMENT_TOML,
        "config_sha256": "c" * 64,
        "tokens": TOKENS,
        "lanes": lanes,
        "max_staleness": 0,
        "credits": 1,
        "quorum": 1.0,
        "grace_s": 0.0,
        "on_rollback": "restore",
        "orphan_ttl_s": 60.0,
        "every": 4,
        "count": 1,
        "max_count": 8,
    }
    return settings_of(**(values | changes))


def published(outer_step: int, value: float = 0.0) -> Published:
    """Return a published theta whose bytes are distinct for each outer step and value."""
    words = np.array([outer_step, value], np.float32).tobytes()
    return Published.of(outer_step, (words * BODY_BYTES)[:BODY_BYTES])


def open_log(path: Path, wall_clock: Callable[[], float] = time.time) -> EventLog:
    """Return an event log that is closed after the test."""
    log = EventLog(path, wall_clock)
    OPENED.callback(log.close)
    return log


def make_core(run_dir: Path, clock: Clock | None = None, term: int = 1, **changes: Any) -> WatchedCore:
    """Return a core at outer step 0 without workers."""
    settings = make_settings(run_dir, **changes)
    clock = clock or Clock()
    run = Run(
        settings=settings,
        schema=SCHEMA,
        term=term,
        lanes=LaneTable(settings.experiment.lanes, term),
        thetas=ThetaHistory([published(0)]),
        theta=THETA,
        learner_state=LEARNER_STATE,
        telemetry=Telemetry.of(open_log(run_dir / "logs" / "events.jsonl", clock), Counters(clock()), clock),
        clock=clock,
    )
    return WatchedCore(run)


class Peer:
    """A worker that calls the core's methods directly and stores the messages it receives."""

    def __init__(
        self,
        core: WatchedCore,
        name: str = "w0",
        process_uuid: str = "i0",
        attach: bool = True,
        host: str = "here",
    ) -> None:
        self.core = core
        self.name = name
        self.process_uuid = process_uuid
        self.host = host
        self.messages: list[LearnerMessage] = []
        self.pushes = 0
        self.stream: SendQueue | None = None
        self.join()
        if attach:
            self.attach()

    @property
    def session(self) -> WorkerSession:
        session = self.core.run.sessions.get(self.session_id)
        assert session is not None
        return session

    def join(self, held: list[learner_pb2.HeldLane] | None = None) -> learner_pb2.JoinReply:
        reply = self.core.join(
            learner_pb2.JoinRequest(
                protocol_min=1,
                protocol_max=1,
                worker_name=self.name,
                process_uuid=self.process_uuid,
                host=self.host,
                pid=1,
                device_kind="cpu",
                held=held or [],
            )
        )
        self.session_id, self.secret = reply.session_id, reply.session_secret
        return reply

    def attach(self) -> SendQueue | None:
        self.listen()
        attached = self.core.attach(self.secret)
        self.stream = attached[1] if attached else None
        return self.stream

    def break_stream(self) -> None:
        assert self.stream is not None
        self.listen()
        self.core.detach(self.session_id, self.stream)

    def beat(self, **fields: Any) -> None:
        self.core.heartbeat(self.session_id, learner_pb2.Heartbeat(**fields))

    def listen(self) -> list[LearnerMessage]:
        """Receive, store and return the core's pending messages to this worker."""
        new = []
        while self.stream is not None and len(self.stream):
            new.append(next(iter(self.stream)))
        self.messages += new
        return new

    def received(self, kind: str) -> list[Any]:
        """Return the received messages of one kind."""
        self.listen()
        return [getattr(message, kind) for message in self.messages if message.HasField(kind)]

    def verdicts(self) -> list[str]:
        return [learner_pb2.Verdict.Name(verdict.verdict) for verdict in self.received("verdict")]

    def lanes(self) -> list[int]:
        return [lane.number for lane in self.core.run.lanes.held_by(self.session_id)]

    def push(self, lane: int, seq: int, **fields: Any) -> GradientEstimatorOut:
        """Push an estimate whose gradient is all ones."""
        message, body = self.estimate(lane, seq, **fields)
        self.core.pushes.receive(self.session_id, message, body)
        return message

    def estimate(
        self, lane: int, seq: int, value: float = 1.0, **fields: Any
    ) -> tuple[GradientEstimatorOut, Body]:
        self.pushes += 1
        defaults = {
            "push_id": self.pushes,
            "lane": lane,
            "fencing_token": self.core.run.lanes[lane].fencing_token
            if lane < len(self.core.run.lanes)
            else 1,
            "seq": seq,
            "outer_step": self.core.run.outer_step,
            "weight": 10.0,
            "mean_loss": 2.0,
            "unroll_info": learner_pb2.UnrollInfo(inner_steps=5),
        }
        body = gradient_body(value)
        message = GradientEstimatorOut(**(defaults | {"grad": codec.tensors(body, 1, 1 << 20)} | fields))
        return message, Body.read(message, body, SCHEMA)


def gradient_body(value: float) -> bytes:
    """Return the bytes of a gradient whose elements are all `value`."""
    return codec.encode(
        jax.tree.map(lambda leaf: np.full(leaf.shape, value, leaf.dtype), THETA_SHAPE), SCHEMA
    )


def update(core: WatchedCore, effect: Effect = Effect.MOVED) -> None:
    """Apply the complete batch without computing an update."""
    assert core.updates.take_batch() is not None
    core.updates.applied(outcome(core.run.outer_step + 1, effect))


def outcome(outer_step: int, effect: Effect = Effect.MOVED) -> Outcome:
    """Return the outcome of an update to `outer step`."""
    return Outcome(
        published(outer_step), THETA, LEARNER_STATE, effect, loss=1.5, grad_norm=1.0, update_norm=0.1
    )


def run_one_step(core: WatchedCore, *peers: Peer) -> None:
    """Push one estimate of each lane from its worker, and apply the update."""
    seq = core.run.outer_step + 1
    for peer in peers:
        for lane in peer.lanes():
            peer.push(lane, seq)
    update(core)


def stream_reader(core: LearnerCore, session_id: str, snapshots: SnapshotStore) -> StreamReader:
    """Return a reader of a session's stream, as in the learner's server."""
    return StreamReader(LearnerHost(core, snapshots), session_id)
