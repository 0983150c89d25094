"""A million random frames and mutated messages: parsers raise their own errors, and memory stays flat."""

import json
import random
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from google.protobuf.message import DecodeError

from learner.coordination.pushes import Body
from learner.servers.admin_service import AdminServicer
from learner.storage.checkpoint import Checkpoint, LaneMark, decode, encode, verify
from learner.storage.checkpoint_store import CheckpointStore
from learner.storage.snapshots import SnapshotRef, SnapshotStore
from learner.storage.thetas import Published
from learner.training.outer import OuterLearner
from protos import codec
from protos.exit_codes import CheckpointError, LearnerUnreachableError
from protos.rpc.session_host import JoinDeniedError
from protos.unspool.v1 import admin_pb2, common_pb2, learner_pb2
from service.config.run_config import RunConfig
from service.config.toml_document import parse_tables, write_tables
from service.run.checkpoints import checkpoints_of
from service.run.last_status import last_status
from service.run.run_directory import RunDirectory
from tests.faults.configs import one_hot_toml
from tests.faults.mutations import mutated_bytes, mutated_message
from tests.learner.builders import (
    BODY_BYTES,
    EXPERIMENT,
    SCHEMA,
    Peer,
    gradient_body,
    make_core,
    make_settings,
    stream_reader,
)
from tests.learner.running import RunningLearner
from unspool.config.config_error import ConfigError
from unspool.experiment import Experiment
from unspool.serialization import SerializationError, from_bytes, to_bytes
from workers.session.session_state import Joined, SessionState, TooManyCommandsError

pytestmark = pytest.mark.slow

_GROWTH_BYTES = 48 << 20
_BODY = gradient_body(1.0)


@pytest.fixture(autouse=True)
def _memory_stays_flat() -> Iterator[None]:
    """Beyond what imports, caches and the like may take."""
    before = resident_bytes()
    yield
    grown = resident_bytes() - before
    assert grown < _GROWTH_BYTES, f"{grown >> 20} MiB more than before"


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def worker_messages() -> list[learner_pb2.WorkerMessage]:
    """One of each kind, such as w0 would send."""
    fencing_token = (1 << 32) + 1
    push = learner_pb2.GradientEstimatorOut(
        push_id=1, lane=0, fencing_token=fencing_token, seq=1, weight=10.0, mean_loss=2.0
    )
    inline, chunked, merged = (learner_pb2.GradientEstimatorOut() for _ in range(3))
    for one in (inline, chunked, merged):
        one.CopyFrom(push)
    inline.grad.CopyFrom(codec.tensors(_BODY, 1, 1 << 20))
    chunked.grad.CopyFrom(codec.tensors(_BODY, 1, 1))
    merged.CopyFrom(inline)
    merged.parts.add(lane=0, fencing_token=fencing_token, seq=1, weight=10.0)
    lane = {"lane": 0, "fencing_token": fencing_token, "seq": 1}
    heartbeat = learner_pb2.Heartbeat(phase=learner_pb2.Heartbeat.COMPUTING, phase_age_s=1.0, progress=3)
    heartbeat.lanes.add(**lane)
    snapshot = learner_pb2.Snapshot(**lane, bytes=16, sha256="0" * 64, transfer=2)
    messages = [
        {"heartbeat": heartbeat},
        {"push": inline},
        {"push": chunked},
        {"push": merged},
        {"chunk": next(codec.chunks(_BODY, 1, 8))},
        {"snapshot": snapshot},
        {"chunk": next(codec.chunks(bytes(16), 2, 8))},
        {"lane_return": learner_pb2.LaneReturn(**lane, reason="moved")},
        {"log": learner_pb2.LogLine(level="info", text="hello")},
        {"lane_failure": learner_pb2.LaneFailure(**lane, traceback="Traceback")},
        {"stack": learner_pb2.StackDump(text="Thread")},
    ]
    return [learner_pb2.WorkerMessage(**message) for message in messages]


class OneWorkersStream:
    """A core with a worker whose messages go through `StreamReader`; an ended session is replaced."""

    def __init__(self, run_dir: Path) -> None:
        self.core = make_core(run_dir)
        self.snapshots = SnapshotStore(run_dir / "lanes")
        self.peer = Peer(self.core, attach=False)
        self.open()

    def open(self) -> None:
        self.peer.join()
        stream = self.peer.attach()
        assert stream is not None
        self.stream = stream
        self.inbound = stream_reader(self.core, self.peer.session_id, self.snapshots)

    def take(self, message: learner_pb2.WorkerMessage) -> None:
        self.inbound.take(message)
        if len(self.stream) > 500 or self.core.run.sessions.get(self.peer.session_id) is None:
            self.inbound.close()
            self.open()
        if self.core.updates.take_batch() is not None:
            self.core.run.applying = ()  # applied; theta need not move for this


def test_a_workers_stream(tmp_path: Path) -> None:
    stream, draws, corpus = OneWorkersStream(tmp_path), random.Random(1), worker_messages()
    for _ in range(300_000):
        stream.take(mutated_message(draws, draws.choice(corpus)))
    assert stream.core.run.sessions.named("w0") is not None
    assert len(stream.core.run.buffer) <= stream.core.run.settings.buffer_items


def test_frames_that_are_no_messages() -> None:
    draws = random.Random(2)
    corpus = [message.SerializeToString() for message in worker_messages()]
    kinds = (learner_pb2.WorkerMessage, learner_pb2.JoinRequest, learner_pb2.LearnerMessage, admin_pb2.Status)
    for _ in range(450_000):
        try:
            draws.choice(kinds).FromString(mutated_bytes(draws, draws.choice(corpus)))
        except DecodeError:
            continue


def test_joins(tmp_path: Path) -> None:
    core, draws = make_core(tmp_path), random.Random(3)
    request = learner_pb2.JoinRequest(
        protocol_min=1, protocol_max=1, run_id="test-run", worker_name="w0", process_uuid="i0", host="here"
    )
    request.held.add(lane=0, fencing_token=1, seq=1)
    for _ in range(50_000):
        mutated = mutated_message(draws, request)
        try:
            core.join(mutated)
        except JoinDeniedError:
            continue
    assert len(core.run.sessions) <= core.run.settings.workers.max_count


class AbortedError(Exception):
    """What gRPC's `context.abort` raises."""


class Context:
    """The part of a call's context that the admin service uses."""

    def abort(self, code: object, details: str) -> None:
        raise AbortedError(f"{code}: {details}")


def admin_requests() -> list[tuple[str, Any]]:
    return [
        ("GetStatus", admin_pb2.GetStatusRequest()),
        ("Scale", admin_pb2.ScaleRequest(workers=2)),
        ("Drain", admin_pb2.DrainRequest(worker_name="w9", deadline_s=1.0, reason="because")),
        ("Evict", admin_pb2.EvictRequest(worker_name="w9", reason="because")),
        ("GetStack", admin_pb2.GetStackRequest(worker_name="w9")),
        ("ResetLane", admin_pb2.ResetLaneRequest(lane=7)),
        ("ListEvents", admin_pb2.ListEventsRequest(after=3, limit=2)),
        ("Pause", admin_pb2.PauseRequest()),
        ("Resume", admin_pb2.ResumeRequest()),
        ("Stop", admin_pb2.StopRequest()),
    ]


def test_admin_requests(tmp_path: Path) -> None:
    core, draws = make_core(tmp_path), random.Random(4)
    plane = AdminServicer(core)
    requests = [(name, request) for name, request in admin_requests() if name in vars(AdminServicer)]
    for _ in range(20_000):
        name, request = draws.choice(requests)
        try:
            getattr(plane, name)(mutated_message(draws, request), Context())
        except AbortedError:
            continue
    assert core.run.scale.workers <= core.run.settings.workers.max_count


def learner_messages() -> list[learner_pb2.LearnerMessage]:
    lane = {"lane": 0, "fencing_token": 1}
    messages: list[dict[str, Any]] = [
        {"heartbeat_ack": learner_pb2.HeartbeatAck(outer_step=1, credits=2)},
        {"verdict": learner_pb2.PushVerdict(push_id=1, lane=0, seq=1, verdict=learner_pb2.STALE, credits=1)},
        {"theta": learner_pb2.ThetaAnnouncement(outer_step=1, sha256="0" * 64, inline=_BODY)},
        {"grant": learner_pb2.LaneGrant(**lane, seq=3, replay_outer_steps=[1, 2], credits=1)},
        {"revocation": learner_pb2.LaneRevocation(**lane, reason="moved")},
        {"drain": learner_pb2.Drain(reason="scaled down", deadline_s=1.0)},
        {"stack_request": learner_pb2.StackRequest()},
    ]
    return [learner_pb2.LearnerMessage(**message) for message in messages]


def test_what_a_worker_receives() -> None:
    state, draws, corpus = SessionState(), random.Random(5), learner_messages()
    state.joined(Joined(learner_pb2.JoinReply(chunk_bytes=1 << 20), frozenset(), True))
    for number in range(150_000):
        try:
            state.receive(mutated_message(draws, draws.choice(corpus)))
        except TooManyCommandsError:
            state.commands()
        if number % 1000 == 0:
            state.commands()


def test_bodies() -> None:
    draws = random.Random(6)
    push = learner_pb2.GradientEstimatorOut(grad=codec.tensors(_BODY, 1, 1 << 20))
    for _ in range(60_000):
        data = mutated_bytes(draws, _BODY)
        body = Body.read(push, data, SCHEMA)
        assert (body.error is None) == (data == _BODY)  # of so short a body no other has the same sum


def test_chunks() -> None:
    draws, chunks = random.Random(7), list(codec.chunks(_BODY, 5, 7))
    completed = 0
    for _ in range(20_000):
        assembler = codec.Assembler(5, BODY_BYTES)
        try:
            for chunk in chunks:
                is_whole = draws.random() < 0.9
                assembler.add(chunk if is_whole else mutated_message(draws, chunk))
            completed += assembler.body() == _BODY
        except codec.CodecError:
            continue
    assert completed > 0


def fuzzed(count: int, seed: int, valid: bytes, parse: Callable[[bytes], Any], *errors: type) -> None:
    """Check that `parse` accepts mutations of `valid` or raises one of `errors`."""
    draws = random.Random(seed)
    parse(valid)
    for _ in range(count):
        try:
            parse(mutated_bytes(draws, valid))
        except errors:
            continue


def test_safetensors() -> None:
    tree = {"state": np.arange(6.0, dtype=np.float32), "step": np.int32(3)}
    valid = to_bytes(tree, {"lane": "1"})
    fuzzed(60_000, 8, valid, lambda data: from_bytes(data, tree), SerializationError)


@pytest.fixture(scope="module")
def outer() -> OuterLearner:
    outer = OuterLearner(EXPERIMENT, 3)
    outer.initialise()
    return outer


def test_checkpoints(tmp_path: Path, outer: OuterLearner) -> None:
    like = {"theta": outer.theta_shape, "learner_state": outer.state_shape()}
    ring = (Published.of(0, codec.encode(outer.theta(), outer.schema)),)
    marks = tuple(LaneMark(lane, 0, 1, SnapshotRef(lane, 1, "0" * 64)) for lane in range(3))
    checkpoint = Checkpoint("r", 1, "c" * 64, 7, outer.theta(), outer.state, ring, marks, 0, 0.0, 7)
    path = tmp_path / "checkpoints" / "step-00000000.safetensors"
    path.parent.mkdir()

    def load(data: bytes) -> None:
        decode(data, verify(data), like)

    def look(data: bytes) -> None:
        path.write_bytes(data)
        CheckpointStore(path.parent, keep=1).referenced_snapshots()
        checkpoints_of(RunDirectory(tmp_path))

    fuzzed(20_000, 9, encode(checkpoint), load, CheckpointError)
    fuzzed(5_000, 10, encode(checkpoint), look)


def test_the_files_of_a_run_directory(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    tables = parse_tables(one_hot_toml(outer_steps=9).encode(), "x")
    run.create(write_tables(RunConfig.from_tables(tables).to_tables()))
    (tmp_path / "term").write_text("1")
    about = {"run": "r", "pid": 1, "term": 1, "learner": "h:1", "admin": "h:2", "http": "h:3", "tls": False}

    def endpoints(data: bytes) -> None:
        (tmp_path / "endpoints.json").write_bytes(data)
        run.endpoints()

    def status(data: bytes) -> None:
        (tmp_path / "status.json").write_bytes(data)
        last_status(run)

    fuzzed(20_000, 11, json.dumps(about).encode(), endpoints, LearnerUnreachableError)
    valid = json.dumps({"run": "r", "state": "FINISHED", "term": 1, "outer_step": 9}).encode()
    fuzzed(2_000, 12, valid, status)


def test_configurations() -> None:
    valid = one_hot_toml(outer_steps=9).encode()

    def read(data: bytes) -> None:
        RunConfig.from_tables(parse_tables(data, "x"))

    fuzzed(20_000, 13, valid, read, ConfigError)


def test_experiments() -> None:
    valid = make_settings(Path()).experiment_toml.encode()
    fuzzed(2_000, 14, valid, lambda data: Experiment.from_toml(data.decode(errors="replace")), ConfigError)


def test_ports_that_receive_random_bytes(tmp_path: Path) -> None:
    draws = random.Random(15)
    preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes.fromhex("000000040000000000")
    request = b"GET /status.json HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer y\r\n\r\n"
    with RunningLearner(make_settings(tmp_path)) as running:
        for _ in range(1_000):
            host, _, port = running.endpoints[draws.choice(("learner", "admin", "http"))].rpartition(":")
            with socket.create_connection((host, int(port)), timeout=10) as connection:
                connection.sendall(mutated_bytes(draws, draws.choice((preface, request))))
        assert running.status().state == "WAITING_FOR_WORKERS"


def test_schemas_of_hostile_sizes_allocate_nothing() -> None:
    leaf = common_pb2.Leaf(path="x", dtype="float32", shape=[2**31 - 1, 2**31 - 1])
    hostile = common_pb2.Schema(leaves=[leaf], sha256="0" * 64)
    with pytest.raises(codec.SchemaMismatchError):
        codec.decode(b"abc", hostile)
