"""The record of the lanes: leases with fencing tokens, progress, and snapshots."""

import pytest

from learner.state.lanes import Lane, LaneState, LaneTable, term_of
from learner.storage.snapshots import SnapshotRef


@pytest.fixture
def lanes() -> LaneTable:
    return LaneTable(count=3, term=2)


def add_snapshots(lane: Lane, *seqs: int) -> None:
    for seq in seqs:
        lane.snapshots[seq] = SnapshotRef(lane.number, seq, "s" * 64)


def test_all_lanes_of_a_new_table_are_free(lanes: LaneTable) -> None:
    assert [lane.number for lane in lanes.free()] == [0, 1, 2]
    assert [lane.leases for lane in lanes] == [0, 0, 0]


def test_each_lease_has_a_larger_fencing_token_of_the_same_term(lanes: LaneTable) -> None:
    lane = lanes[1]
    tokens = []
    for _ in range(3):
        lanes.grant(lane, "w0")
        tokens.append(lane.fencing_token)
        lanes.release(lane)
    assert tokens == sorted(set(tokens))
    assert [term_of(token) for token in tokens] == [2, 2, 2]
    assert lane.leases == 3


def test_two_learner_processes_share_no_fencing_token() -> None:
    old, new = LaneTable(1, term=1), LaneTable(1, term=2)
    for _ in range(100):
        old.grant(old[0], "w0")
    assert old[0].fencing_token < new[0].fencing_token


def test_a_lane_is_leased_only_to_its_holder_under_its_current_token(lanes: LaneTable) -> None:
    lane = lanes[0]
    lanes.grant(lane, "w0")
    token = lane.fencing_token
    assert lanes.leased("w0", 0, token) is lane
    assert lanes.leased("w1", 0, token) is None
    assert lanes.leased("w0", 0, token - 1) is None
    assert lanes.leased("w0", 3, token) is None
    lanes.release(lane)
    assert lanes.leased("w0", 0, token) is None


def test_a_lane_that_is_being_revoked_is_still_held(lanes: LaneTable) -> None:
    for number in (0, 2):
        lanes.grant(lanes[number], "w0")
    lanes[2].state = LaneState.REVOKING
    assert [lane.number for lane in lanes.held_by("w0")] == [0, 2]
    assert [lane.number for lane in lanes.free()] == [1]


def test_a_quarantined_lane_is_neither_held_nor_free_until_the_quarantine_is_lifted(lanes: LaneTable) -> None:
    lanes.grant(lanes[1], "w0")
    lanes.quarantine(lanes[1], "Traceback")
    assert (lanes.held_by("w0"), lanes.quarantined()) == ([], [lanes[1]])
    assert [lane.number for lane in lanes.free()] == [0, 2]
    lanes.lift_quarantine(lanes[1])
    assert (lanes[1].state, lanes[1].problem) == (LaneState.FREE, "")


def test_lifting_no_quarantine_keeps_a_lease(lanes: LaneTable) -> None:
    lanes.grant(lanes[1], "w0")
    lanes.lift_quarantine(lanes[1])
    assert lanes[1].holder == "w0"


@pytest.mark.parametrize(("at_most", "expected"), [(0, None), (1, 1), (3, 1), (4, 4), (9, 8)])
def test_the_newest_snapshot_is_not_ahead_of_the_estimate(at_most: int, expected: int | None) -> None:
    lane = Lane(0, 0)
    add_snapshots(lane, 4, 1, 8)
    newest = lane.newest_snapshot(at_most)
    assert (newest and newest.seq) == expected


def test_a_new_holder_continues_from_the_returned_state_if_it_is_later() -> None:
    assert Lane(0, 0, accepted=5, returned=7).reached == 7
    assert Lane(0, 0, accepted=5, returned=3).reached == 5


def test_a_reset_lane_continues_after_every_seq_that_was_used() -> None:
    lane = Lane(0, 0, accepted=5, nonfinite_in_a_row=2)
    add_snapshots(lane, 4, 6)
    lane.reset()
    assert (lane.reached, lane.snapshots, lane.nonfinite_in_a_row, lane.was_reset) == (6, {}, 0, True)


def test_the_oldest_restart_is_the_oldest_snapshot_that_theta_does_not_precede(lanes: LaneTable) -> None:
    for lane in lanes:
        lane.applied = 10
        add_snapshots(lane, 8)
    assert lanes.oldest_restart() == 8
    add_snapshots(lanes[0], 12)  # ahead of theta, so a restart could not use it
    assert lanes.oldest_restart() == 8
    lanes[1].snapshots.clear()
    assert lanes.oldest_restart() == 0
