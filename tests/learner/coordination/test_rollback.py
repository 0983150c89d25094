"""What lanes go on from once theta went back to a checkpoint, or once they were told to begin anew."""

from pathlib import Path
from typing import Any

import pytest

from learner.coordination.status import build_status
from learner.storage.snapshots import SnapshotRef
from protos.unspool.v1.learner_pb2 import HeldLane, LaneGrant
from tests.learner.builders import Peer, WatchedCore, make_core, run_one_step

OLD_LEASE = (1 << 32) + 1
CHECKPOINT = 40


def restarted(run_dir: Path, **changes: Any) -> WatchedCore:
    """A second life whose checkpoint has each of two lanes at seq 40, with a snapshot."""
    defaults = {"mode": "async", "max_staleness": 5, "lanes": 2, "batch": 2, "count": 2}
    core = make_core(run_dir, term=2, **(defaults | changes))
    for lane in core.run.lanes:
        lane.accepted = lane.applied = CHECKPOINT
        lane.snapshots[CHECKPOINT] = SnapshotRef(lane.number, CHECKPOINT, "s")
    return core


def come_back(core: WatchedCore, name: str, **held: int) -> Peer:
    """Join with lane states of the first life, such as `lane1=45`."""
    peer = Peer(core, name, attach=False)
    peer.join([HeldLane(lane=int(lane[-1]), fencing_token=OLD_LEASE, seq=seq) for lane, seq in held.items()])
    peer.attach()
    return peer


def grant_of_lane_1(core: WatchedCore, seq: int) -> tuple[str, LaneGrant]:
    """Say who gets lane 1, and how, where `w0` comes back with it at `seq`."""
    peers = come_back(core, "w0", lane1=seq), come_back(core, "w1")
    grants = [(peer.session_id, grant) for peer in peers for grant in peer.received("grant")]
    return next((session_id, grant) for session_id, grant in grants if grant.lane == 1)


def test_keep_lets_the_worker_continue_with_what_it_has(tmp_path: Path) -> None:
    session_id, grant = grant_of_lane_1(restarted(tmp_path, on_rollback="keep"), seq=45)
    assert (session_id, grant.seq, grant.discard_held) == ("w0#1", CHECKPOINT, False)


def test_restore_continues_from_the_checkpoint_on_any_worker(tmp_path: Path) -> None:
    core = restarted(tmp_path, on_rollback="restore", count=1)
    grant = next(grant for grant in come_back(core, "w0", lane1=45).received("grant") if grant.lane == 1)
    assert (grant.snapshot_seq, grant.discard_held) == (CHECKPOINT, True)


@pytest.mark.parametrize("on_rollback", ["keep", "restore", "reset"])
def test_a_state_that_is_not_ahead_of_the_checkpoint_is_kept(tmp_path: Path, on_rollback: str) -> None:
    session_id, grant = grant_of_lane_1(restarted(tmp_path, on_rollback=on_rollback), seq=CHECKPOINT)
    assert (session_id, grant.discard_held) == ("w0#1", False)


def test_reset_restarts_the_lanes_that_were_ahead(tmp_path: Path) -> None:
    core = restarted(tmp_path, on_rollback="reset", count=1)
    grants = {grant.lane: grant for grant in come_back(core, "w0", lane1=45).received("grant")}
    assert [(grants[lane].snapshot_seq, grants[lane].discard_held) for lane in (0, 1)] == [
        (CHECKPOINT, False),
        (0, True),
    ]
    assert core.run.telemetry.events.latest(1)[0].kind == "lanes_reset"


def test_a_lane_that_went_on_already_is_not_reset_by_who_comes_later(tmp_path: Path) -> None:
    core = restarted(tmp_path, on_rollback="reset", count=1)
    come_back(core, "w0")
    come_back(core, "w1", lane1=45)
    assert not core.run.lanes[1].was_reset


@pytest.mark.parametrize("on_rollback", ["keep", "restore"])
def test_a_state_ahead_within_one_start_is_kept(tmp_path: Path, on_rollback: str) -> None:
    core = restarted(tmp_path, on_rollback=on_rollback, count=1)
    first = come_back(core, "w0")
    lease = core.run.lanes[1].fencing_token
    core.leave(first.session_id, "its session ended, its process did not")
    peer = Peer(core, "w0", attach=False)
    peer.join([HeldLane(lane=1, fencing_token=lease, seq=CHECKPOINT + 2)])
    peer.attach()
    assert [grant.discard_held for grant in peer.received("grant")] == [False, False]


def test_sync_goes_by_seq_alone(tmp_path: Path) -> None:
    core = restarted(tmp_path, mode="sync", max_staleness=0, count=1)
    peer = come_back(core, "w0", lane1=45)
    assert [grant.discard_held for grant in peer.received("grant")] == [False, False]


def test_a_held_lane_that_does_not_exist_is_ignored(tmp_path: Path) -> None:
    core = restarted(tmp_path, on_rollback="reset", count=1)
    assert come_back(core, "w0", lane9=45).lanes() == [0, 1]


def diverge(peer: Peer, lane: int, times: int) -> None:
    for _ in range(times):
        record = peer.core.run.lanes[lane]
        peer.push(lane, record.reached + 1, value=float("nan"))
        peer.core.run.buffer.take(list(peer.core.run.buffer))


def test_a_lane_that_diverges_three_times_restarts(tmp_path: Path) -> None:
    core = restarted(tmp_path, count=1)
    peer = come_back(core, "w0")
    lease = core.run.lanes[1].fencing_token
    peer.listen()
    diverge(peer, 1, times=3)
    told = [message.WhichOneof("body") for message in peer.listen()]
    grant = peer.received("grant")[-1]
    assert told == ["verdict", "verdict", "verdict", "revocation", "grant"]
    assert (grant.lane, grant.snapshot_seq, grant.discard_held) == (1, 0, True)
    assert grant.fencing_token > lease
    assert "lane 1: 3 estimates in a row" in core.run.telemetry.events.latest(1)[0].text


def test_an_estimate_that_is_finite_begins_the_count_again(tmp_path: Path) -> None:
    core = restarted(tmp_path, count=1)
    peer = come_back(core, "w0")
    diverge(peer, 1, times=2)
    peer.push(1, CHECKPOINT + 3)
    diverge(peer, 1, times=2)
    assert not core.run.lanes[1].was_reset


def test_what_was_pushed_for_the_lane_before_is_fenced_off(tmp_path: Path) -> None:
    core = restarted(tmp_path, count=1)
    peer = come_back(core, "w0")
    lease = core.run.lanes[1].fencing_token
    diverge(peer, 1, times=3)
    peer.push(1, 99, fencing_token=lease)
    assert peer.verdicts()[-1] == "NOT_LEASED"


def test_estimates_of_a_lane_that_restarted_get_numbers_of_their_own(tmp_path: Path) -> None:
    core = restarted(tmp_path)
    lane = core.run.lanes[0]
    lane.snapshots[CHECKPOINT + 7] = SnapshotRef(0, CHECKPOINT + 7, "ahead")
    lane.reset()
    assert (lane.reached, lane.snapshots) == (CHECKPOINT + 7, {})


def test_in_sync_a_lane_that_diverges_continues_and_is_named(tmp_path: Path) -> None:
    core = make_core(tmp_path)
    peer = Peer(core)
    for seq in range(1, 4):
        peer.push(1, seq, value=float("nan"))
        run_one_step(core, peer)
    assert not core.run.lanes[1].was_reset
    assert build_status(core.run).problems == [
        "lane 1: its last 3 estimates were not finite and have no weight"
    ]
