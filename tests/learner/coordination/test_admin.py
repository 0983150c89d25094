"""The operator's commands about one worker or one lane: evict, stack, reset."""

from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from learner.coordination.admin import WrongStateError
from learner.storage.snapshots import SnapshotRef
from protos.unspool.v1 import admin_pb2, learner_pb2
from protos.unspool.v1.learner_pb2 import Goodbye
from tests.learner.builders import Peer, WatchedCore, make_core, make_settings
from tests.learner.running import HandWrittenWorker, RunningLearner


@pytest.fixture
def core(tmp_path: Path) -> WatchedCore:
    return make_core(tmp_path)


@pytest.fixture
def running(tmp_path: Path) -> Iterator[RunningLearner]:
    with RunningLearner(make_settings(tmp_path)) as learner:
        yield learner


def events(core: WatchedCore) -> list[str]:
    return [event.kind for event in core.run.telemetry.events.latest(1000)]


def test_an_evicted_workers_lanes_go_to_others_and_it_is_told(core: WatchedCore) -> None:
    evicted, other = Peer(core, "w0"), Peer(core, "w1")
    core.admin.evict("w0", "hangs")
    assert evicted.received("goodbye")[-1] == Goodbye(reason=Goodbye.EVICTED, detail="hangs")
    assert other.lanes() == [0, 1, 2]
    assert "worker_evicted" in events(core)


def test_an_evicted_worker_may_come_back(core: WatchedCore) -> None:
    Peer(core, "w0")
    core.admin.evict("w0", "hangs")
    assert Peer(core, "w0", process_uuid="i1").lanes() == [0, 1, 2]


@pytest.mark.parametrize(
    "command",
    [
        lambda admin: admin.evict("w7", ""),
        lambda admin: admin.ask_for_stack("w7"),
        lambda admin: admin.drain("w7", "", 1.0),
    ],
    ids=["evict", "stack", "drain"],
)
def test_a_command_about_an_unknown_worker_names_those_that_there_are(core: WatchedCore, command) -> None:
    Peer(core, "w0")
    with pytest.raises(KeyError, match="WORKER = w7: there is no such worker; there are: w0"):
        command(core.admin)


def test_a_lane_that_restarts_is_granted_without_a_state(tmp_path: Path) -> None:
    core = make_core(tmp_path, mode="async", batch=2)
    peer = Peer(core)
    core.snapshot_stored(peer.session_id, core.run.lanes[1].fencing_token, SnapshotRef(1, 4, "digest"))
    core.admin.reset_lane(1, fresh=True)
    grant = peer.received("grant")[-1]
    assert (grant.lane, grant.snapshot_seq, grant.seq, grant.discard_held) == (1, 0, 4, True)


def test_sync_refuses_to_reset_a_lane(core: WatchedCore) -> None:
    with pytest.raises(WrongStateError, match="reset-lane 1 --fresh: not in sync"):
        core.admin.reset_lane(1, fresh=True)


def test_there_is_no_such_lane(core: WatchedCore) -> None:
    with pytest.raises(KeyError, match="reset-lane LANE = 3: there are lanes 0 to 2"):
        core.admin.reset_lane(3, fresh=False)


def test_a_running_learner_evicts(running: RunningLearner) -> None:
    worker = HandWrittenWorker(running).enter()
    worker.grants(3)
    running.ask("Evict", admin_pb2.EvictRequest(worker_name="w0", reason="hangs"))
    assert worker.next("goodbye").reason == Goodbye.EVICTED


def test_a_running_learner_fetches_a_stack(running: RunningLearner) -> None:
    worker = HandWrittenWorker(running).enter()
    worker.grants(3)
    reply = running.admin.GetStack.future(
        admin_pb2.GetStackRequest(worker_name="w0"), metadata=running.metadata
    )
    worker.next("stack_request")
    worker.send(stack=learner_pb2.StackDump(text="Thread 1"))
    assert reply.result().text == "Thread 1"


def test_a_worker_that_does_not_answer_is_not_waited_for(
    running: RunningLearner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("learner.coordination.admin._STACK_S", 0.05)
    worker = HandWrittenWorker(running).enter()
    worker.grants(3)
    with pytest.raises(grpc.RpcError, match="w0 did not answer") as caught:
        running.ask("GetStack", admin_pb2.GetStackRequest(worker_name="w0"))
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED


@pytest.mark.parametrize(
    ("method", "request_", "code"),
    [
        ("Evict", admin_pb2.EvictRequest(worker_name="w7"), grpc.StatusCode.NOT_FOUND),
        ("GetStack", admin_pb2.GetStackRequest(worker_name="w7"), grpc.StatusCode.NOT_FOUND),
        ("ResetLane", admin_pb2.ResetLaneRequest(lane=7), grpc.StatusCode.NOT_FOUND),
        ("ResetLane", admin_pb2.ResetLaneRequest(fresh=True), grpc.StatusCode.FAILED_PRECONDITION),
    ],
)
def test_a_command_that_cannot_be_followed_says_why(
    running: RunningLearner, method: str, request_: object, code: grpc.StatusCode
) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        running.ask(method, request_)
    assert caught.value.code() is code
