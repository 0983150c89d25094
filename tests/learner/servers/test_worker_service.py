"""The data plane as workers meet it: a real server on loopback, and messages written by hand."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from protos import codec
from protos.exit_codes import ExitCode
from protos.unspool.v1 import admin_pb2, learner_pb2
from protos.unspool.v1.learner_pb2 import Goodbye, HeldLane
from tests.learner.builders import EXPERIMENT, SCHEMA, gradient_body, make_settings
from tests.learner.running import HandWrittenWorker, RunningLearner
from tests.support.experiments import QUADRATIC, toml_of
from tests.support.patience import PATIENCE_S
from unspool.experiment import Experiment
from unspool.serialization import digest

LARGE_TOML = toml_of(QUADRATIC, "learned_optimizer={type='MLPLOpt', hidden_size=720}", "aggregation.lanes=1")


@pytest.fixture
def running(tmp_path: Path) -> Iterator[RunningLearner]:
    with RunningLearner(make_settings(tmp_path, outer_steps=2)) as learner:
        yield learner


@pytest.fixture
def worker(running: RunningLearner) -> HandWrittenWorker:
    return HandWrittenWorker(running).enter()


def code_of(error: pytest.ExceptionInfo[grpc.RpcError]) -> grpc.StatusCode:
    code: Any = error.value
    return code.code()


def test_a_run_is_finished_by_pushing(running: RunningLearner, worker: HandWrittenWorker) -> None:
    grants = worker.grants(3)
    for grant in grants.values():
        worker.push(grant, 1, 0, gradient_body(1.0))
    assert worker.next("theta").outer_step == 1
    for grant in grants.values():
        worker.push(grant, 2, 1, gradient_body(1.0))
    assert worker.next("goodbye").reason == Goodbye.FINISHED
    assert running.wait() == 0
    assert [path.name for path in running.directory.checkpoints.iterdir()] == ["step-00000002.safetensors"]
    assert not running.directory.endpoints.exists()


def test_a_join_is_answered_with_all_that_a_worker_needs(running: RunningLearner) -> None:
    reply = HandWrittenWorker(running).join()
    assert (reply.schema, reply.lanes_total, reply.exact_steps, reply.snapshot_every) == (
        SCHEMA,
        3,
        True,
        4,
    )
    assert Experiment.from_toml(reply.experiment_toml).seed == EXPERIMENT.seed


def test_theta_moves_by_the_mean_gradient(running: RunningLearner, worker: HandWrittenWorker) -> None:
    before = codec.decode(worker.next("theta").inline, SCHEMA)
    for grant in worker.grants(3).values():
        worker.push(grant, 1, 0, gradient_body(2.0))
    announcement = worker.next("theta")
    after = codec.decode(announcement.inline, SCHEMA)
    assert [pytest.approx(old - 0.1 * 2.0) for old in before] == after
    assert announcement.sha256 == running.status().theta_sha256 == digest(after)


def test_a_large_theta_and_its_gradients_travel_in_chunks(tmp_path: Path) -> None:
    settings = make_settings(
        tmp_path, experiment=Experiment.from_toml(LARGE_TOML), experiment_toml=LARGE_TOML, lanes=1
    )
    with RunningLearner(settings) as running:
        worker = HandWrittenWorker(running).enter()
        announcement, grant = worker.next("theta"), worker.next("grant")
        theta = worker.fetch_theta(0)
        assert len(theta) > 2 << 20
        assert not announcement.HasField("inline")
        assert hashlib.sha256(theta).hexdigest() == announcement.sha256
        worker.push(grant, 1, 0, np.ones(len(theta) // 4, np.float32).tobytes())
        assert worker.next("theta").sha256 == hashlib.sha256(worker.fetch_theta(1)).hexdigest()


def test_a_damaged_chunk_costs_a_verdict_and_not_the_stream(
    running: RunningLearner, worker: HandWrittenWorker
) -> None:
    grant = worker.next("grant")
    body = gradient_body(1.0)
    push = learner_pb2.GradientEstimatorOut(
        push_id=1, lane=grant.lane, fencing_token=grant.fencing_token, seq=1, weight=1.0, grad={"transfer": 1}
    )
    worker.send(push=push)
    worker.send(chunk={"transfer": 1, "offset": 0, "data": body, "crc32": 7})
    assert worker.verdict() == "CORRUPT"
    worker.push(grant, 1, 0, body)
    assert worker.verdict() == "ACCEPTED"


def test_a_body_beyond_the_schema_is_refused_while_it_arrives(worker: HandWrittenWorker) -> None:
    grant = worker.next("grant")
    push = learner_pb2.GradientEstimatorOut(
        push_id=1, lane=grant.lane, fencing_token=grant.fencing_token, seq=1, weight=1.0, grad={"transfer": 1}
    )
    worker.send(push=push)
    worker.send_body(gradient_body(1.0) + b"more", transfer=1)
    assert worker.verdict() == "TOO_LARGE"


def test_a_broken_stream_is_resumed_with_lanes_and_pushes(
    running: RunningLearner, worker: HandWrittenWorker
) -> None:
    grants = worker.grants(3)
    worker.push(grants[0], 1, 0, gradient_body(1.0))
    assert worker.verdict() == "ACCEPTED"
    worker.call.cancel()
    first = worker.reply.session_id
    worker.join(
        [HeldLane(lane=lane, fencing_token=grant.fencing_token, seq=0) for lane, grant in grants.items()]
    )
    worker.open()
    for grant in grants.values():
        worker.push(grant, 1, 0, gradient_body(1.0))
    assert [worker.verdict() for _ in range(3)] == ["DUPLICATE", "ACCEPTED", "ACCEPTED"]
    assert worker.next("theta").outer_step == 1
    assert worker.reply.session_id == first


def test_a_session_needs_the_secret_of_its_join(running: RunningLearner) -> None:
    worker = HandWrittenWorker(running)
    worker.join()
    worker.reply.session_secret = "guessed"
    worker.open()
    with pytest.raises(grpc.RpcError) as error:
        worker.next("theta")
    assert code_of(error) is grpc.StatusCode.FAILED_PRECONDITION


def test_a_worker_that_says_nothing_more_is_answered_by_the_end_of_the_stream(
    worker: HandWrittenWorker,
) -> None:
    worker.grants(3)
    worker.hang_up()
    assert list(worker.call) == []


def test_a_lane_state_comes_back_as_it_was_sent(running: RunningLearner, worker: HandWrittenWorker) -> None:
    grants = worker.grants(3)
    state = bytes(range(256)) * 5000
    sha256 = hashlib.sha256(state).hexdigest()
    worker.push(grants[0], 1, 0, gradient_body(1.0))
    worker.send(
        snapshot={
            "lane": 0,
            "fencing_token": grants[0].fencing_token,
            "seq": 1,
            "bytes": len(state),
            "sha256": sha256,
        }
        | {"transfer": 9}
    )
    worker.send_body(state, transfer=9)
    worker.send(lane_return={"lane": 0, "fencing_token": grants[0].fencing_token, "seq": 1})
    grant = worker.next("grant")
    assert (grant.lane, grant.seq, grant.snapshot_seq, grant.snapshot_sha256) == (0, 1, 1, sha256)
    assert worker.fetch_snapshot(0, 1, len(state)) == state


@pytest.mark.parametrize("lane", [0, 99])
def test_a_lane_state_that_is_not_there_is_not_found(worker: HandWrittenWorker, lane: int) -> None:
    with pytest.raises(grpc.RpcError) as error:
        worker.fetch_snapshot(lane, 5, 10)
    assert code_of(error) is grpc.StatusCode.NOT_FOUND


def test_a_theta_that_is_not_kept_is_not_found(worker: HandWrittenWorker) -> None:
    with pytest.raises(grpc.RpcError, match="theta 5 is not kept; the newest is 0") as error:
        worker.fetch_theta(5)
    assert code_of(error) is grpc.StatusCode.NOT_FOUND


def test_a_refused_join_says_why(running: RunningLearner) -> None:
    worker = HandWrittenWorker(running, name="not a name")
    with pytest.raises(grpc.RpcError, match="1 to 64 letters") as error:
        worker.join()
    assert code_of(error) is grpc.StatusCode.FAILED_PRECONDITION


def test_a_drained_worker_leaves(running: RunningLearner, worker: HandWrittenWorker) -> None:
    grants = worker.grants(3)
    running.ask("Drain", admin_pb2.DrainRequest(worker_name="w0", reason="test"))
    assert worker.next("drain").reason == "test"
    for grant in grants.values():
        worker.send(lane_return={"lane": grant.lane, "fencing_token": grant.fencing_token, "seq": 0})
    request = learner_pb2.LeaveRequest(session_id=worker.reply.session_id, reason="drained")
    running.learner.Leave(request, metadata=running.metadata, timeout=PATIENCE_S)
    assert worker.next("goodbye").reason == Goodbye.DRAINED
    assert list(running.status().workers) == []


def test_a_theta_that_never_stays_finite_fails_the_run_with_the_good_one_saved(tmp_path: Path) -> None:
    with RunningLearner(make_settings(tmp_path, outer_steps=9)) as running:
        worker = HandWrittenWorker(running).enter()
        good = worker.next("theta").sha256
        grants = worker.grants(3)
        for outer_step in range(3):
            for grant in grants.values():
                worker.push(grant, outer_step + 1, outer_step, gradient_body(3e38), weight=1e30)
            last = worker.next("theta" if outer_step < 2 else "goodbye")
        assert last.reason == Goodbye.FAILED
        assert running.wait() == ExitCode.RUN_FAILED
    thetas = [message.theta.sha256 for message in worker.messages if message.HasField("theta")]
    assert set(thetas) == {good}


def test_random_bytes_do_not_hurt_the_learner(running: RunningLearner) -> None:
    draws = np.random.default_rng(0)
    channel = running.channel("learner")
    for method in ("Join", "Leave", "GetTheta", "GetSnapshot"):
        call = channel.unary_unary(f"/unspool.v1.Learner/{method}")
        for size in (1, 10, 100):
            with pytest.raises(grpc.RpcError):
                call(draws.bytes(size) + b"\xff", metadata=running.metadata, timeout=PATIENCE_S)
    assert running.status().state == "WAITING_FOR_WORKERS"
