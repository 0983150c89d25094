"""Estimates that raise: which failures are the same, and what becomes of the lane and of the host."""

from pathlib import Path

import pytest

from learner.coordination.status import build_status, waiting_for
from learner.state.failures import Failure, FailureLog, digest_of
from learner.state.lanes import LaneState
from learner.state.run_state import RunState
from protos.rpc.denials import DenialReason
from protos.rpc.session_host import JoinDeniedError
from protos.unspool.v1.learner_pb2 import Goodbye, LaneFailure
from tests.learner.builders import Peer, WatchedCore, make_core, run_one_step

TRACEBACK = """Traceback (most recent call last):
  File "/home/anna/unspool/workers/unroller.py", line 101, in estimate
    estimate = self._estimate(lane, weights)
  File "/home/anna/unspool/tasks.py", line 7, in loss
    return table[index]
IndexError: index 17 is out of range at 0x7fa1b2c3
"""
OTHER = TRACEBACK.replace("IndexError", "KeyError")


def fail(peer: Peer, lane: int, seq: int = 1, traceback: str = TRACEBACK) -> None:
    """An estimate raises, and its worker ends."""
    fencing_token = peer.core.run.lanes[lane].fencing_token
    message = LaneFailure(lane=lane, fencing_token=fencing_token, seq=seq, traceback=traceback)
    peer.core.lane_failed(peer.session_id, message)
    peer.core.leave(peer.session_id, "exits 70")


def fail_often(core: WatchedCore, lane: int, times: int, traceback: str = TRACEBACK) -> None:
    for life in range(times):
        fail(Peer(core, process_uuid=f"life-{life}"), lane, traceback=traceback)


def events(core: WatchedCore) -> list[str]:
    return [event.kind for event in core.run.telemetry.events.latest(1000)]


@pytest.fixture
def core(tmp_path: Path) -> WatchedCore:
    return make_core(tmp_path)


@pytest.mark.parametrize(
    "same",
    [
        TRACEBACK.replace("17", "3"),
        TRACEBACK.replace("0x7fa1b2c3", "0x55"),
        TRACEBACK.replace("/home/anna/unspool", "/opt/venv/site-packages"),
    ],
    ids=["number", "address", "folder"],
)
def test_numbers_addresses_and_folders_make_no_other_failure(same: str) -> None:
    assert digest_of(same) == digest_of(TRACEBACK)


@pytest.mark.parametrize(
    "other",
    [OTHER, TRACEBACK.replace("line 7", "line 8"), TRACEBACK.replace("in loss", "in init"), ""],
    ids=["exception", "line", "function", "nothing"],
)
def test_another_exception_or_another_frame_is_another_failure(other: str) -> None:
    assert digest_of(other) != digest_of(TRACEBACK)


def test_the_third_identical_failure_of_a_lane_puts_it_in_quarantine(core: WatchedCore) -> None:
    fail_often(core, 1, 2)
    assert core.run.lanes[1].state is LaneState.FREE
    fail_often(core, 1, 1)
    lane = build_status(core.run).lanes[1]
    assert (lane.state, lane.failures, lane.worker) == ("quarantined", 3, "")
    assert lane.problem == TRACEBACK
    assert events(core).count("lane_failed") == 3
    assert "lane_quarantined" in events(core)


def test_failures_of_different_kinds_do_not_add_up(core: WatchedCore) -> None:
    fail_often(core, 1, 2)
    fail_often(core, 1, 2, OTHER)
    assert core.run.lanes[1].state is LaneState.FREE
    assert build_status(core.run).lanes[1].failures == 4


def test_a_success_of_the_lane_ends_the_count(core: WatchedCore) -> None:
    fail_often(core, 1, 2)
    Peer(core, process_uuid="good").push(1, 1)
    assert build_status(core.run).lanes[1].failures == 0
    fail(Peer(core, process_uuid="bad"), 1, seq=2)
    assert core.run.lanes[1].state is LaneState.FREE


def test_an_earlier_estimate_that_arrives_after_the_failure_is_no_success() -> None:
    log = FailureLog()
    log.add(Failure(1, seq=5, host="a", digest="d", traceback=""))
    log.succeeded(1, seq=4, host="a")
    assert (log.count(1), log.lanes_failing("a", "d")) == (1, [1])


def test_a_failure_under_a_lease_that_has_ended_counts_for_nothing(core: WatchedCore) -> None:
    peer = Peer(core)
    core.lane_failed(peer.session_id, LaneFailure(lane=1, fencing_token=7, seq=1, traceback=TRACEBACK))
    core.lane_failed(peer.session_id, LaneFailure(lane=99, fencing_token=1, seq=1, traceback=TRACEBACK))
    assert "lane_failed" not in events(core)


def test_a_lane_in_quarantine_is_leased_to_nobody_until_it_is_reset(core: WatchedCore) -> None:
    fail_often(core, 1, 3)
    peer = Peer(core, process_uuid="fresh")
    assert peer.lanes() == [0, 2]
    core.admin.reset_lane(1, fresh=False)
    assert peer.lanes() == [0, 1, 2]
    status = build_status(core.run)
    assert (status.lanes[1].problem, status.lanes[1].failures, list(status.problems)) == ("", 0, [])


def test_sync_waits_for_a_lane_in_quarantine_and_says_so(core: WatchedCore) -> None:
    fail_often(core, 1, 3)
    peer = Peer(core, process_uuid="fresh")
    for lane in peer.lanes():
        peer.push(lane, 1)
    assert core.updates.take_batch() is None
    assert waiting_for(core.run) == (
        "1 of 3 lanes to leave quarantine: lane 1 in quarantine until `reset-lane`"
    )
    assert "IndexError" in build_status(core.run).problems[0]


def test_many_lanes_in_quarantine_leave_the_status_small(tmp_path: Path) -> None:
    core = make_core(tmp_path, lanes=500)
    for lane in core.run.lanes:
        core.run.lanes.quarantine(lane, "x" * 8000)
    status = build_status(core.run)
    assert status.ByteSize() < 1 << 19
    assert status.problems[-1] == "496 more lanes: in quarantine until `reset-lane`"


def test_a_stop_does_not_wait_for_a_lane_in_quarantine(core: WatchedCore) -> None:
    fail_often(core, 1, 3)
    Peer(core, process_uuid="fresh")
    core.admin.stop(now=False, reason="test")
    assert core.updates.ending() is RunState.STOPPED


def test_quorum_does_not_wait_for_a_lane_in_quarantine(tmp_path: Path) -> None:
    core = make_core(tmp_path, mode="quorum", quorum=1.0, grace_s=60.0)
    fail_often(core, 1, 3)
    peer = Peer(core, process_uuid="fresh")
    peer.push(0, 1)
    assert core.updates.take_batch() is None
    peer.push(2, 1)
    batch = core.updates.take_batch()
    assert batch is not None
    assert [item and item.lane for item in batch] == [0, None, 2]


def test_async_continues_without_a_lane_while_the_others_can_fill_a_batch(tmp_path: Path) -> None:
    core = make_core(tmp_path, mode="async", batch=2)
    fail_often(core, 1, 3)
    peer = Peer(core, process_uuid="fresh")
    assert core.run.blocked == ""
    run_one_step(core, peer)
    assert core.run.outer_step == 1


def test_async_says_that_its_batch_is_out_of_reach(tmp_path: Path) -> None:
    core = make_core(tmp_path, mode="async", batch=3)
    fail_often(core, 1, 3)
    Peer(core, process_uuid="fresh")
    assert waiting_for(core.run).startswith("1 of 3 lanes to leave quarantine: lane 1 in quarantine")


def working_host(core: WatchedCore, host: str = "good", lane: int = 0) -> Peer:
    """A worker elsewhere that has made an estimate."""
    peer = Peer(core, name=f"on-{host}", host=host)
    core.run.lanes.release(core.run.lanes[lane])
    core.run.lanes.grant(core.run.lanes[lane], peer.session_id)
    peer.push(lane, 1)
    return peer


def fail_on(core: WatchedCore, host: str, lanes: list[int]) -> None:
    """One worker of a host after another fails."""
    for life, number in enumerate(lanes):
        peer = Peer(core, name=f"on-{host}", process_uuid=f"{host}-{life}", host=host)
        lane = core.run.lanes[number]
        core.run.lanes.release(lane)
        core.run.lanes.grant(lane, peer.session_id)
        fail(peer, number)


def test_a_host_where_several_lanes_fail_is_excluded_while_another_works(core: WatchedCore) -> None:
    working_host(core)
    bystander = Peer(core, "bystander", host="bad")
    fail_on(core, "bad", [1, 2, 1])
    assert list(build_status(core.run).excluded_hosts) == ["bad"]
    assert bystander.received("goodbye")[0].reason == Goodbye.EVICTED
    assert not core.run.lanes.quarantined()
    assert "host_excluded" in events(core)


def test_a_worker_on_an_excluded_host_is_refused(core: WatchedCore) -> None:
    working_host(core)
    fail_on(core, "bad", [1, 2, 1])
    with pytest.raises(JoinDeniedError, match=r"host 'bad' is excluded: 3 identical failures .* IndexError"):
        Peer(core, "another", host="bad")
    assert core.run.telemetry.denials.counts() == {DenialReason.EXCLUDED_HOST: 1}


def test_a_lane_that_was_in_quarantine_for_its_hosts_failures_is_leased_again(core: WatchedCore) -> None:
    working_host(core)
    fail_on(core, "bad", [1, 1, 1])
    assert core.run.lanes.quarantined() == [core.run.lanes[1]]
    fail_on(core, "bad", [2])
    assert core.run.lanes.quarantined() == []


def test_the_only_host_is_never_excluded(core: WatchedCore) -> None:
    fail_on(core, "bad", [1, 2, 1, 2])
    assert not core.run.excluded_hosts


def test_a_failure_that_comes_everywhere_is_no_hosts_fault(core: WatchedCore) -> None:
    working_host(core, "other")
    fail_on(core, "other", [1])
    working_host(core, "other")
    fail_on(core, "bad", [1, 2])
    fail_on(core, "bad", [2])
    assert not core.run.excluded_hosts


def test_a_failure_that_the_same_lane_gets_over_on_the_host_does_not_count_against_it() -> None:
    log = FailureLog()
    for lane in (1, 2):
        log.add(Failure(lane, seq=1, host="a", digest="d", traceback=""))
    log.succeeded(1, seq=1, host="a")
    log.succeeded(2, seq=1, host="b")
    assert log.lanes_failing("a", "d") == [2]
