"""The operator's commands about one worker or one lane: evict, stack, reset."""

from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from learner.coordination.admin import WrongStateError
from learner.storage.snapshots import SnapshotRef
from protos.unspool.v1 import admin_pb2, learner_pb2
from protos.unspool.v1.learner_pb2 import Goodbye, Heartbeat, StackDump
from tests.learner.builders import Peer, WatchedCore, make_core, make_settings
from tests.learner.running import HandWrittenWorker, RunningLearner
from tests.support.clock import Clock


@pytest.fixture
def core(tmp_path: Path) -> WatchedCore:
    return make_core(tmp_path)


@pytest.fixture
def running(tmp_path: Path) -> Iterator[RunningLearner]:
    with RunningLearner(make_settings(tmp_path)) as learner:
        yield learner


def events(core: WatchedCore) -> list[str]:
    return [event.kind for event in core.run.telemetry.events.latest(1000)]


def asks(peer: Peer) -> int:
    return len(peer.told("stack_request"))


def test_an_evicted_workers_lanes_go_to_others_and_it_is_told(core: WatchedCore) -> None:
    evicted, other = Peer(core, "w0"), Peer(core, "w1")
    core.admin.evict("w0", "hangs")
    assert evicted.told("goodbye")[-1] == Goodbye(reason=Goodbye.EVICTED, detail="hangs")
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


def test_a_stack_is_answered_to_the_caller_that_asked(core: WatchedCore) -> None:
    peer = Peer(core)
    asked = core.admin.ask_for_stack("w0")
    assert asks(peer) == 1
    core.stack(peer.session_id, StackDump(text="Thread 1"))
    assert asked.result(0) == "Thread 1"
    assert "worker_stack" not in events(core)


def test_two_who_ask_at_once_get_one_answer(core: WatchedCore) -> None:
    peer = Peer(core)
    asked = [core.admin.ask_for_stack("w0") for _ in range(2)]
    core.stack(peer.session_id, StackDump(text="Thread 1"))
    assert [future.result(0) for future in asked] == ["Thread 1"] * 2


def test_a_dump_that_arrives_after_a_timeout_answers_the_next_request_as_well(core: WatchedCore) -> None:
    peer = Peer(core)
    timed_out, asked = core.admin.ask_for_stack("w0"), core.admin.ask_for_stack("w0")
    core.stack(peer.session_id, StackDump(text="Thread 1"))
    core.stack(peer.session_id, StackDump(text="Thread 1, later"))
    assert timed_out.result(0) == asked.result(0) == "Thread 1"


def test_a_dump_that_nobody_asked_for_is_dropped(core: WatchedCore) -> None:
    core.stack(Peer(core).session_id, StackDump(text="spam"))
    assert "worker_stack" not in events(core)


def test_a_long_dump_is_cut(core: WatchedCore) -> None:
    peer = Peer(core)
    asked = core.admin.ask_for_stack("w0")
    core.stack(peer.session_id, StackDump(text="x" * (1 << 20)))
    assert len(asked.result(0)) == 1 << 16


def test_a_worker_without_a_stream_cannot_be_asked(core: WatchedCore) -> None:
    Peer(core).break_stream()
    with pytest.raises(ConnectionError, match="it has lost its connection"):
        core.admin.ask_for_stack("w0")


def test_a_stuck_worker_is_asked_for_its_stack_which_becomes_an_event(core: WatchedCore) -> None:
    peer = Peer(core)
    peer.beat(phase=Heartbeat.COMPILING, phase_age_s=901.0)
    for _ in range(3):
        core.tick()
    assert asks(peer) == 1
    core.stack(peer.session_id, StackDump(text="y" * 10_000))
    (event,) = [event for event in core.run.telemetry.events.latest(1000) if event.kind == "worker_stack"]
    assert event.text == "w0:\n" + "y" * 8000


@pytest.mark.parametrize(("phase_age_s", "is_stuck"), [(399.0, False), (401.0, True)])
def test_an_estimate_is_judged_by_the_times_of_its_own_lane(
    core: WatchedCore, phase_age_s: float, is_stuck: bool
) -> None:
    peer = Peer(core)
    peer.push(0, 1, compute_s=1.0)
    peer.push(1, 1, compute_s=40.0)
    peer.beat(phase=Heartbeat.COMPUTING, phase_age_s=phase_age_s, lane=1)
    core.tick()
    assert (peer.lanes() == []) is is_stuck


def test_a_lane_of_quick_estimates_has_a_minute(core: WatchedCore) -> None:
    peer = Peer(core)
    peer.push(0, 1, compute_s=0.1)
    peer.beat(phase=Heartbeat.COMPUTING, phase_age_s=59.0, lane=0)
    core.tick()
    assert peer.lanes() == [0, 1, 2]
    peer.beat(phase=Heartbeat.COMPUTING, phase_age_s=61.0, lane=0)
    core.tick()
    assert peer.lanes() == []


@pytest.mark.parametrize("phase", [Heartbeat.COMPUTING, Heartbeat.COMPILING, Heartbeat.RESTORING])
def test_what_has_no_times_yet_has_a_quarter_of_an_hour(core: WatchedCore, phase: Heartbeat.Phase) -> None:
    peer = Peer(core)
    peer.beat(phase=phase, phase_age_s=899.0, lane=2)
    core.tick()
    assert peer.lanes() == [0, 1, 2]
    peer.beat(phase=phase, phase_age_s=901.0, lane=2)
    core.tick()
    assert peer.lanes() == []


def test_a_stuck_worker_that_begins_something_else_is_back(core: WatchedCore) -> None:
    peer = Peer(core)
    peer.beat(phase=Heartbeat.RESTORING, phase_age_s=901.0)
    core.tick()
    peer.beat(phase=Heartbeat.IDLE, phase_age_s=1.0)
    core.tick()
    assert peer.lanes() == [0, 1, 2]
    assert events(core)[-1] == "worker_back"


def test_a_worker_that_waits_is_never_stuck(core: WatchedCore) -> None:
    peer = Peer(core)
    peer.beat(phase=Heartbeat.IDLE, phase_age_s=1e6)
    core.tick()
    assert peer.lanes() == [0, 1, 2]


def test_a_frozen_process_is_suspected_and_then_gone_and_not_asked(tmp_path: Path) -> None:
    clock = Clock()
    core = make_core(tmp_path, clock)
    peer = Peer(core)
    clock.advance(11.0)
    core.tick()
    assert events(core)[-1] == "worker_suspect"
    clock.advance(20.0)
    core.tick()
    assert events(core)[-1] == "worker_expired"
    assert asks(peer) == 0


def test_a_lane_that_restarts_is_granted_without_a_state(tmp_path: Path) -> None:
    core = make_core(tmp_path, mode="async", batch=2)
    peer = Peer(core)
    core.snapshot_stored(peer.session_id, core.run.lanes[1].fencing_token, SnapshotRef(1, 4, "digest"))
    core.admin.reset_lane(1, fresh=True)
    grant = peer.told("grant")[-1]
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
    worker.say(stack=learner_pb2.StackDump(text="Thread 1"))
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
