"""Gradients of older thetas: what they weigh, and what becomes of a worker that makes nothing else."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from learner.coordination.status import build_status
from learner.state.aggregation import Async
from protos.unspool.v1.learner_pb2 import LaneReturn
from tests.learner.builders import Peer, WatchedCore, make_core, update
from tests.support.clock import Clock


def make_async(run_dir: Path, clock: Clock | None = None, **changes: Any) -> WatchedCore:
    defaults = {"lanes": 4, "mode": "async", "batch": 1, "max_staleness": 2, "credits": 2}
    return make_core(run_dir, clock, **(defaults | changes))


def weights_of_batch(core: WatchedCore) -> list[float]:
    return [item.weight for item in core.updates.take_batch() or () if item is not None]


def push_with_staleness(core: WatchedCore, *staleness: int) -> None:
    """Put a gradient of weight 6 for each of the first lanes into the buffer, with its staleness."""
    peer = Peer(core)
    for _ in range(2):
        peer.push(3, core.run.outer_step + 1)
        update(core)
    rule = core.run.aggregation
    core.run.aggregation = Async(dataclasses.replace(rule.table, batch=len(staleness)))
    for lane, behind in enumerate(staleness):
        peer.push(lane, 1, weight=6.0, outer_step=core.run.outer_step - behind)


@pytest.mark.parametrize(("weighting", "expected"), [("none", [6.0, 6.0, 6.0]), ("inverse", [6.0, 3.0, 2.0])])
def test_weights_fall_with_staleness_as_configured(
    tmp_path: Path, weighting: str, expected: list[float]
) -> None:
    core = make_async(tmp_path, staleness_weighting=weighting)
    push_with_staleness(core, 0, 1, 2)
    assert weights_of_batch(core) == pytest.approx(expected)


def test_a_missing_lane_stays_missing_whatever_the_weighting(tmp_path: Path) -> None:
    core = make_core(
        tmp_path, mode="quorum", quorum=0.5, max_staleness=1, staleness_weighting="inverse", lanes=3
    )
    peer = Peer(core)
    for lane in (0, 2):
        peer.push(lane, 1)
    assert [item and item.lane for item in core.updates.take_batch() or ()] == [0, None, 2]


def test_what_was_weighed_is_settled_and_gone_from_the_buffer(tmp_path: Path) -> None:
    core = make_async(tmp_path, staleness_weighting="inverse")
    peer = Peer(core)
    peer.push(0, 1)
    update(core)
    assert peer.verdicts() == ["ACCEPTED", "APPLIED"]
    assert len(core.run.buffer) == 0


@pytest.fixture
def core(tmp_path: Path) -> WatchedCore:
    """Two workers with two lanes each, and theta at outer step 5."""
    core = make_async(tmp_path, count=2)
    quick, slow = Peer(core, "quick"), Peer(core, "slow")
    assert (quick.lanes(), slow.lanes()) == ([0, 2], [1, 3])
    for seq in range(1, 6):
        quick.push(0, seq)
        update(core)
    return core


def be_late(peer: Peer, times: int, apart_s: float = 3.0) -> None:
    for _ in range(times):
        peer.core.run.clock.advance(apart_s)
        peer.push(peer.lanes()[-1], 1, outer_step=0)
        for session in peer.core.run.sessions:
            session.last_message_s = peer.core.run.clock()


def workers(core: WatchedCore) -> tuple[Peer, Peer]:
    return Peer(core, "quick"), Peer(core, "slow")


def obey(peer: Peer) -> None:
    """Return what was asked back."""
    for revocation in peer.received("revocation"):
        message = LaneReturn(lane=revocation.lane, fencing_token=revocation.fencing_token, seq=0)
        peer.core.return_lane(peer.session_id, message)


def test_a_worker_is_named_once_its_last_estimates_were_all_too_old(core: WatchedCore) -> None:
    _, slow = workers(core)
    be_late(slow, 2)
    assert build_status(core.run).problems == []
    be_late(slow, 1)
    status = build_status(core.run)
    assert ["slow: its last 3 estimates were too old" in problem for problem in status.problems] == [True]
    assert [worker.stale_in_a_row for worker in status.workers] == [0, 3]
    assert core.run.telemetry.events.latest(1)[0].kind == "worker_late"


def test_a_worker_that_is_held_up_for_a_moment_is_not_late(core: WatchedCore) -> None:
    _, slow = workers(core)
    be_late(slow, 40, apart_s=0.1)
    assert build_status(core.run).problems == []
    assert slow.received("revocation") == []


def test_an_estimate_that_is_used_clears_its_name(core: WatchedCore) -> None:
    _, slow = workers(core)
    be_late(slow, 4)
    slow.push(slow.lanes()[0], 1)
    update(core)
    assert build_status(core.run).problems == []
    assert [event.kind for event in core.run.telemetry.events.latest(2)] == ["worker_late", "worker_in_time"]


def test_an_estimate_that_grows_too_old_while_it_waits_counts_as_well(core: WatchedCore) -> None:
    quick, slow = workers(core)
    be_late(slow, 2, apart_s=6.0)
    slow.push(1, 1, outer_step=3)
    core.run.buffer.take([item for item in core.run.buffer if item.session_id == quick.session_id])
    (waiting,) = core.run.buffer
    core.run.buffer.take([waiting])
    quick.push(0, 6)
    core.run.buffer.add(waiting)
    update(core)
    assert slow.verdicts()[-2:] == ["ACCEPTED", "STALE"]
    assert slow.session.is_late


def test_it_loses_one_lane_at_a_time_until_it_has_none(core: WatchedCore) -> None:
    quick, slow = workers(core)
    held = []
    for _ in range(2):
        be_late(slow, 3)
        obey(slow)
        held.append((len(quick.lanes()), len(slow.lanes())))
    assert held == [(3, 1), (4, 0)]


def test_it_gets_none_back_while_others_can_have_them(core: WatchedCore) -> None:
    _, slow = workers(core)
    be_late(slow, 3)
    obey(slow)
    core.tick()
    assert len(slow.lanes()) == 1


def test_it_keeps_its_lanes_where_nobody_else_is_there(core: WatchedCore) -> None:
    quick, slow = workers(core)
    core.leave(quick.session_id, "test")
    be_late(slow, 9)
    core.tick()
    assert len(slow.lanes()) == 4
    assert slow.received("revocation") == []


def test_it_keeps_its_lanes_where_the_others_are_late_too(core: WatchedCore) -> None:
    quick, slow = workers(core)
    be_late(quick, 3)
    asked_back = len(quick.received("revocation"))
    be_late(slow, 3)
    assert (asked_back, len(slow.received("revocation"))) == (1, 0)


def test_the_complaint_goes_with_the_worker(core: WatchedCore) -> None:
    _, slow = workers(core)
    be_late(slow, 3)
    core.leave(slow.session_id, "test")
    assert build_status(core.run).problems == []
