"""Leases: who gets which lane, and from where its state is restored."""

from pathlib import Path
from typing import Any

import pytest

from learner.scale import Scale
from learner.state.lanes import LaneState
from learner.storage.snapshots import SnapshotRef
from protos.unspool.v1 import learner_pb2
from protos.unspool.v1.learner_pb2 import HeldLane, LaneReturn
from tests.learner.builders import Peer, WatchedCore, make_core, run_one_step, update
from tests.support.clock import Clock


@pytest.fixture
def core(tmp_path: Path, clock: Clock) -> WatchedCore:
    return make_core(tmp_path, clock, lanes=4)


def give_back(peer: Peer, lane: int, seq: int) -> None:
    fencing_token = peer.core.run.lanes[lane].fencing_token
    peer.core.return_lane(
        peer.session_id, LaneReturn(lane=lane, fencing_token=fencing_token, seq=seq, reason="test")
    )


def store_snapshot(peer: Peer, lane: int, seq: int) -> bool:
    ref = SnapshotRef(lane, seq, sha256=f"{lane}-{seq}")
    return peer.core.snapshot_stored(peer.session_id, peer.core.run.lanes[lane].fencing_token, ref)


def announced(lane: int, seq: int, fencing_token: int, size: int = 10) -> learner_pb2.Snapshot:
    return learner_pb2.Snapshot(lane=lane, fencing_token=fencing_token, seq=seq, bytes=size)


def obey_revocations(*peers: Peer) -> None:
    for peer in peers:
        for message in peer.listen():
            if message.HasField("revocation"):
                give_back(peer, message.revocation.lane, peer.core.run.outer_step)


def test_the_first_grant_starts_a_lane_from_theta_zero(core: WatchedCore) -> None:
    grant = Peer(core).received("grant")[0]
    assert (grant.seq, grant.snapshot_seq, grant.init_outer_step, list(grant.replay_outer_steps)) == (
        0,
        0,
        0,
        [],
    )


def test_incarnations_of_two_starts_of_the_learner_differ(tmp_path: Path) -> None:
    first, second = make_core(tmp_path, term=1), make_core(tmp_path, term=2)
    assert (
        max(Peer(first).received("grant")[0].fencing_token for _ in range(3))
        < Peer(second).received("grant")[0].fencing_token
    )


def test_workers_that_are_expected_share_the_lanes_from_the_start(tmp_path: Path) -> None:
    core = make_core(tmp_path, lanes=4, count=2)
    first = Peer(core, "w0")
    assert first.lanes() == []
    second = Peer(core, "w1")
    assert [len(first.lanes()), len(second.lanes())] == [2, 2]


def test_workers_that_do_not_come_are_not_waited_for(tmp_path: Path, clock: Clock) -> None:
    core = make_core(tmp_path, clock, count=2)
    peer = Peer(core)
    clock.advance(2.1)
    peer.beat()
    core.tick()
    assert peer.lanes() == [0, 1, 2]


def test_a_new_worker_takes_over_its_share_once_it_was_given_back(core: WatchedCore) -> None:
    first = Peer(core, "w0")
    second = Peer(core, "w1")
    assert second.lanes() == []
    obey_revocations(first)
    assert [len(first.lanes()), len(second.lanes())] == [2, 2]


def test_no_more_is_asked_back_than_is_due(core: WatchedCore) -> None:
    first = Peer(core, "w0")
    Peer(core, "w1")
    for _ in range(3):
        core.tick()
    assert len(first.received("revocation")) == 2


def test_a_lane_whose_estimate_has_come_is_asked_back_first(core: WatchedCore) -> None:
    first = Peer(core, "w0")
    first.push(1, 1)
    Peer(core, "w1")
    assert [revocation.lane for revocation in first.received("revocation")] == [1, 3]


def test_a_revoked_lane_may_still_be_pushed(core: WatchedCore) -> None:
    first = Peer(core, "w0")
    Peer(core, "w1")
    lane = first.received("revocation")[0].lane
    assert core.run.lanes[lane].state is LaneState.REVOKING
    first.push(lane, 1)
    assert first.verdicts() == ["ACCEPTED"]


def test_a_draining_worker_gets_no_lanes(core: WatchedCore) -> None:
    first = Peer(core, "w0")
    core.admin.drain("w0", "test", 60.0)
    for lane in range(4):
        give_back(first, lane, 0)
    second = Peer(core, "w1")
    assert (first.lanes(), second.lanes()) == ([], [0, 1, 2, 3])
    assert first.received("drain")[0].deadline_s == 60.0


def test_a_drain_is_said_again_on_the_next_stream(core: WatchedCore) -> None:
    peer = Peer(core)
    core.admin.drain("w0", "test", 60.0)
    peer.listen()
    peer.attach()
    assert [message.HasField("drain") for message in peer.listen()] == [False, True]


def test_draining_an_unknown_worker_names_those_there_are(core: WatchedCore) -> None:
    Peer(core, "w0")
    Peer(core, "w1")
    with pytest.raises(KeyError, match="no such worker; there are: w0, w1"):
        core.admin.drain("w7", "test", 60.0)


def test_lanes_go_back_to_the_workers_that_hold_their_state(tmp_path: Path) -> None:
    core = make_core(tmp_path, term=2, lanes=4, count=2)
    first = Peer(core, "w0", attach=False)
    first.join([HeldLane(lane=lane, fencing_token=1, seq=0) for lane in (1, 3)])
    first.attach()
    second = Peer(core, "w1", attach=False)
    second.join([HeldLane(lane=lane, fencing_token=1, seq=0) for lane in (0, 2)])
    second.attach()
    assert (first.lanes(), second.lanes()) == ([1, 3], [0, 2])


def test_a_state_ahead_of_the_lane_earns_no_preference(tmp_path: Path) -> None:
    core = make_core(tmp_path, term=2, lanes=2, batch=2, count=2)
    first = Peer(core, "w0", attach=False)
    first.join([HeldLane(lane=1, fencing_token=1, seq=5)])
    first.attach()
    Peer(core, "w1")
    assert first.lanes() == [0]


def test_a_lane_is_restored_from_its_newest_snapshot_and_the_thetas_since(core: WatchedCore) -> None:
    peer = Peer(core)
    for _ in range(3):
        run_one_step(core, peer)
    store_snapshot(peer, 0, 2)
    peer.push(0, 4)
    give_back(peer, 0, 4)
    grant = peer.received("grant")[-1]
    assert (grant.lane, grant.seq, grant.snapshot_seq, list(grant.replay_outer_steps)) == (0, 4, 2, [2, 3])
    assert grant.snapshot_sha256 == "0-2"


def test_a_snapshot_ahead_of_the_last_accepted_estimate_is_not_used(core: WatchedCore) -> None:
    peer = Peer(core)
    run_one_step(core, peer)
    store_snapshot(peer, 0, 2)
    give_back(peer, 0, 2)
    grant = peer.received("grant")[-1]
    assert (grant.seq, grant.snapshot_seq, list(grant.replay_outer_steps)) == (1, 0, [0])


def test_every_theta_that_a_replay_could_need_is_kept(core: WatchedCore) -> None:
    peer = Peer(core)
    for step in range(1, 9):
        run_one_step(core, peer)
        if step == 5:
            for lane in range(3):  # the fourth has none yet
                store_snapshot(peer, lane, 5)
    assert core.run.thetas.get(0) is not None
    store_snapshot(peer, 3, 5)
    assert [outer_step for outer_step in range(9) if core.run.thetas.get(outer_step)] == [4, 5, 6, 7, 8]


def test_a_snapshot_is_wanted_once(core: WatchedCore) -> None:
    peer = Peer(core)
    peer.push(0, 1)
    fencing_token = core.run.lanes[0].fencing_token
    assert core.wants_snapshot(peer.session_id, announced(0, 1, fencing_token))
    store_snapshot(peer, 0, 1)
    assert not core.wants_snapshot(peer.session_id, announced(0, 1, fencing_token))


@pytest.mark.parametrize(
    ("lane", "incarnation_offset", "seq", "size"),
    [(0, 1, 1, 10), (9, 0, 1, 10), (0, 0, 0, 10), (0, 0, 1, 0), (0, 0, 1, (1 << 30) + 1)],
    ids=["old lease", "no such lane", "nothing behind it", "empty", "too large"],
)
def test_a_snapshot_is_refused_before_anything_is_kept(
    core: WatchedCore, lane: int, incarnation_offset: int, seq: int, size: int
) -> None:
    peer = Peer(core)
    fencing_token = core.run.lanes[0].fencing_token + incarnation_offset
    assert not core.wants_snapshot(peer.session_id, announced(lane, seq, fencing_token, size))


def test_a_snapshot_that_arrives_after_the_lease_ended_does_not_count(core: WatchedCore) -> None:
    peer = Peer(core)
    old = core.run.lanes[0].fencing_token
    give_back(peer, 0, 0)
    assert not core.snapshot_stored(peer.session_id, old, SnapshotRef(0, 1, "x"))


def test_a_return_under_an_old_lease_changes_nothing(core: WatchedCore) -> None:
    peer = Peer(core)
    core.return_lane(peer.session_id, LaneReturn(lane=0, fencing_token=1, seq=0))
    assert peer.lanes() == [0, 1, 2, 3]


def test_in_async_a_state_that_came_back_is_taken_as_it_is(tmp_path: Path) -> None:
    core = make_core(tmp_path, mode="async", max_staleness=2)
    peer = Peer(core)
    store_snapshot(peer, 0, 6)
    give_back(peer, 0, 6)
    grant = peer.received("grant")[-1]
    assert (grant.seq, grant.snapshot_seq, list(grant.replay_outer_steps)) == (6, 6, [])


def test_in_async_a_lane_without_state_begins_with_the_theta_of_now(tmp_path: Path) -> None:
    core = make_core(tmp_path, mode="async", max_staleness=2)
    peer = Peer(core)
    run_one_step(core, peer)
    give_back(peer, 0, 1)
    assert peer.received("grant")[-1].init_outer_step == 1


def test_in_async_only_recent_thetas_are_kept(tmp_path: Path) -> None:
    core = make_core(tmp_path, mode="async", max_staleness=2)
    peer = Peer(core)
    for _ in range(9):
        run_one_step(core, peer)
    assert len(core.run.thetas.kept()) == 5


def test_a_corrupt_snapshot_with_an_older_one_behind_it_is_passed_over(core: WatchedCore) -> None:
    peer = Peer(core)
    for _ in range(2):
        run_one_step(core, peer)
    store_snapshot(peer, 0, 1)
    store_snapshot(peer, 0, 2)
    core.snapshot_corrupt(core.run.lanes[0].snapshots[2], "torn")
    assert not core.run.broken
    assert core.run.lanes[0].newest_snapshot(2) == SnapshotRef(0, 1, "0-1")


def test_a_corrupt_snapshot_that_nothing_can_replace_breaks_a_sync_run(core: WatchedCore) -> None:
    peer = Peer(core)
    for _ in range(8):
        run_one_step(core, peer)
    for lane in range(4):
        store_snapshot(peer, lane, 8)
    core.snapshot_corrupt(core.run.lanes[0].snapshots[8], "torn")
    assert core.run.broken == "torn"


def test_a_pause_holds_updates_back(core: WatchedCore) -> None:
    peer = Peer(core)
    core.admin.pause()
    for lane in range(4):
        peer.push(lane, 1)
    assert core.updates.take_batch() is None
    core.admin.resume()
    update(core)
    assert core.run.outer_step == 1


def test_scaling_beyond_the_maximum_names_it(core: WatchedCore) -> None:
    with pytest.raises(ValueError, match=r"scale N = 9: must be from 0 to 8 \(workers.max_count\)"):
        core.admin.scale(9)
    assert core.admin.scale(3) == (Scale(1), Scale(3))
    assert core.run.scale.workers == 3


def make_pair(tmp_path: Path, **changes: Any) -> tuple[WatchedCore, Clock, Peer, Peer]:
    """A run in `async` whose six lanes are shared by two workers."""
    defaults = {"lanes": 6, "mode": "async", "max_staleness": 9, "count": 2}
    clock = Clock()
    core = make_core(tmp_path, clock, credits=5, **(defaults | changes))
    return core, clock, Peer(core, "w0"), Peer(core, "w1")


def let_pass(core: WatchedCore, clock: Clock, *peers: Peer) -> None:
    """Let time pass until speeds are computed again, and workers return revoked lanes."""
    for _ in range(4):
        clock.advance(6.0)
        for peer in peers:
            peer.beat(workers=peer.session.heartbeat.workers)
    core.tick()
    for peer in peers:
        for message in peer.listen():
            if message.HasField("revocation"):
                lease = {"lane": message.revocation.lane, "fencing_token": message.revocation.fencing_token}
                core.return_lane(peer.session_id, LaneReturn(**lease))


def test_lanes_move_to_the_worker_whose_estimates_take_less(tmp_path: Path) -> None:
    core, clock, quick, slow = make_pair(tmp_path)
    for seq in range(1, 6):
        clock.advance(1.0)
        quick.push(quick.lanes()[0], seq, compute_s=1.0)
        slow.push(slow.lanes()[0], seq, compute_s=2.0)
    let_pass(core, clock, quick, slow)
    assert (len(quick.lanes()), len(slow.lanes())) == (4, 2)


def test_processes_behind_a_relay_count(tmp_path: Path) -> None:
    core, clock, relay, single = make_pair(tmp_path)
    relay.beat(workers=5)
    let_pass(core, clock, relay, single)
    assert (len(relay.lanes()), len(single.lanes())) == (5, 1)


def test_stale_estimates_show_a_workers_speed_as_well(tmp_path: Path) -> None:
    core, clock, quick, slow = make_pair(tmp_path, max_staleness=0, batch=1)
    quick.push(quick.lanes()[0], 1)
    update(core)
    for _ in range(5):
        clock.advance(1.0)
        slow.push(slow.lanes()[0], 1, outer_step=0, compute_s=2.0)
    assert slow.session_id in core.run.throughput.known({slow.session_id})


def test_nothing_moves_without_measurements(tmp_path: Path) -> None:
    core, clock, first, second = make_pair(tmp_path)
    for seq in range(1, 4):
        clock.advance(1.0)
        first.push(first.lanes()[0], seq, compute_s=0.01)
    let_pass(core, clock, first, second)
    assert (len(first.lanes()), len(second.lanes())) == (3, 3)
