"""What the parts of a run decide together: its state, what blocks it, and which thetas are kept."""

from pathlib import Path
from typing import Any

import pytest

from learner.state.run_state import RunState
from learner.storage.snapshots import SnapshotRef
from tests.learner.builders import Peer, WatchedCore, make_core, outcome, run_one_step
from tests.support.clock import Clock


@pytest.fixture
def core(tmp_path: Path, clock: Clock) -> WatchedCore:
    return make_core(tmp_path, clock, every=2)


def kept(core: WatchedCore) -> list[int]:
    return [published.outer_step for published in core.run.thetas.kept()]


def test_a_run_is_degraded_while_no_checkpoint_can_be_written(core: WatchedCore) -> None:
    Peer(core)
    core.checkpoints.failed("disk full")
    assert core.run.state is RunState.DEGRADED
    core.admin.pause()
    assert core.run.state is RunState.PAUSED


@pytest.mark.parametrize(
    ("changes", "quarantined", "is_blocked"),
    [
        ({}, 1, True),
        ({"mode": "quorum", "quorum": 0.5}, 2, False),
        ({"mode": "quorum", "quorum": 0.5}, 3, True),
        ({"mode": "async", "credits": 2, "batch": 3}, 1, False),
        ({"mode": "async", "credits": 2, "batch": 3}, 2, True),
    ],
)
def test_quarantined_lanes_block_the_updates_that_need_them(
    tmp_path: Path, changes: dict[str, Any], quarantined: int, is_blocked: bool
) -> None:
    run = make_core(tmp_path, lanes=3, max_staleness=0, **changes).run
    assert run.blocked == ""
    for number in range(quarantined):
        run.lanes.quarantine(run.lanes[number], "Traceback")
    assert run.blocked == (f"{quarantined} of 3 lanes to leave quarantine" if is_blocked else "")


def test_a_run_computes_while_a_connected_worker_holds_a_lane(core: WatchedCore) -> None:
    assert not core.run.computing
    peer = Peer(core)
    assert core.run.computing
    peer.break_stream()
    assert not core.run.computing


def test_a_message_of_an_expired_session_has_no_sender(core: WatchedCore, clock: Clock) -> None:
    peer = Peer(core)
    clock.advance(3.0)
    assert core.run.sender(peer.session_id) is peer.session
    assert peer.session.last_message_s == clock.now_s
    core.leave(peer.session_id, "done")
    assert core.run.sender(peer.session_id) is None


def test_publishing_an_update_makes_its_theta_the_current_one(core: WatchedCore) -> None:
    core.run.publish(outcome(1))
    assert (core.run.outer_step, core.run.control.moved_at) == (1, 1)


def test_in_sync_every_theta_after_the_last_snapshot_is_kept_for_replays(core: WatchedCore) -> None:
    peer = Peer(core)
    for _ in range(7):
        run_one_step(core, peer)
    assert kept(core) == list(range(8))
    for lane in core.run.lanes:
        ref = SnapshotRef(lane.number, 6, "s" * 64)
        core.snapshot_stored(peer.session_id, lane.fencing_token, ref)
    assert kept(core) == [3, 4, 5, 6, 7]


def test_in_other_modes_only_thetas_that_may_be_fetched_are_kept(tmp_path: Path) -> None:
    core = make_core(tmp_path, mode="async", max_staleness=5, credits=2)
    peer = Peer(core)
    for _ in range(7):
        run_one_step(core, peer)
    assert kept(core) == [3, 4, 5, 6, 7]
