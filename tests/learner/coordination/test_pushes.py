"""Verdicts: what becomes of a push, in the order in which it is judged."""

from pathlib import Path

import pytest

from learner.coordination.pushes import Body
from learner.storage.update_record import Effect
from protos import codec
from protos.unspool.v1 import learner_pb2
from protos.unspool.v1.common_pb2 import Tensors
from protos.unspool.v1.learner_pb2 import GradientEstimatorOut
from tests.learner.builders import (
    SCHEMA,
    Peer,
    WatchedCore,
    gradient_body,
    make_core,
    outcome,
    run_one_step,
    update,
)


@pytest.fixture
def core(tmp_path: Path) -> WatchedCore:
    return make_core(tmp_path)


@pytest.fixture
def peer(core: WatchedCore) -> Peer:
    return Peer(core)


def damaged_body() -> Body:
    push = GradientEstimatorOut(grad=Tensors(inline=gradient_body(1.0), crc32=12345))
    return Body.read(push, gradient_body(1.0), SCHEMA)


def test_a_good_push_is_accepted_and_applied(core: WatchedCore, peer: Peer) -> None:
    run_one_step(core, peer)
    assert peer.verdicts() == ["ACCEPTED"] * 3 + ["APPLIED"] * 3
    assert peer.received("verdict")[-1].outer_step == 1


def test_an_update_waits_for_every_lane(core: WatchedCore, peer: Peer) -> None:
    peer.push(0, 1)
    peer.push(2, 1)
    assert core.updates.take_batch() is None
    peer.push(1, 1)
    assert core.updates.take_batch() is not None


def test_a_batch_is_in_lane_order_whatever_the_order_of_arrival(core: WatchedCore, peer: Peer) -> None:
    for lane in (2, 0, 1):
        peer.push(lane, 1)
    assert [item.lane for item in core.updates.take_batch() or () if item] == [0, 1, 2]


def test_a_batch_is_taken_once(core: WatchedCore, peer: Peer) -> None:
    for lane in range(3):
        peer.push(lane, 1)
    assert core.updates.take_batch() is not None
    assert core.updates.take_batch() is None


def test_a_repeated_push_is_a_duplicate(core: WatchedCore, peer: Peer) -> None:
    peer.push(0, 1)
    peer.push(0, 1)
    assert peer.verdicts() == ["ACCEPTED", "DUPLICATE"]
    assert len(core.run.buffer) == 1


def test_a_push_of_an_applied_estimate_is_a_duplicate(core: WatchedCore, peer: Peer) -> None:
    run_one_step(core, peer)
    peer.push(0, 1, outer_step=0)
    assert peer.verdicts()[-1] == "DUPLICATE"


def test_a_push_ahead_of_theta_is_of_the_future(core: WatchedCore, peer: Peer) -> None:
    peer.push(0, 2)
    peer.push(0, 1, outer_step=1)
    assert peer.verdicts() == ["FUTURE", "FUTURE"]


def test_a_push_made_with_an_old_theta_is_stale(core: WatchedCore, peer: Peer) -> None:
    run_one_step(core, peer)
    peer.push(0, 2, outer_step=0)
    assert peer.verdicts()[-1] == "STALE"


@pytest.mark.parametrize("fields", [{"fencing_token": 999}, {"lane": 77}], ids=["old lease", "no such lane"])
def test_a_push_without_the_lease_is_refused(core: WatchedCore, peer: Peer, fields: dict[str, int]) -> None:
    peer.push(**({"lane": 0, "seq": 1} | fields))
    assert peer.verdicts() == ["NOT_LEASED"]


def test_the_fence_comes_before_the_body(core: WatchedCore, peer: Peer) -> None:
    message, _ = peer.estimate(0, 1, fencing_token=999)
    core.pushes.receive(peer.session_id, message, damaged_body())
    assert peer.verdicts() == ["NOT_LEASED"]


@pytest.mark.parametrize(
    ("data", "verdict"),
    [
        (gradient_body(1.0)[:-1], "SCHEMA_MISMATCH"),
        (gradient_body(1.0) + b"\0", "TOO_LARGE"),
        (b"", "SCHEMA_MISMATCH"),
    ],
    ids=["short", "long", "empty"],
)
def test_a_body_of_another_size_is_refused(core: WatchedCore, peer: Peer, data: bytes, verdict: str) -> None:
    message, _ = peer.estimate(0, 1)
    core.pushes.receive(peer.session_id, message, Body.read(message, data, SCHEMA))
    assert peer.verdicts() == [verdict]


def test_a_damaged_body_is_refused_and_may_be_sent_again(core: WatchedCore, peer: Peer) -> None:
    message, good = peer.estimate(0, 1)
    core.pushes.receive(peer.session_id, message, damaged_body())
    core.pushes.receive(peer.session_id, message, good)
    assert peer.verdicts() == ["CORRUPT", "ACCEPTED"]


@pytest.mark.parametrize(
    "fields",
    [
        {"value": float("nan")},
        {"value": float("inf")},
        {"mean_loss": float("nan")},
        {"weight": float("inf")},
        {"weight": -1.0},
    ],
    ids=str,
)
def test_a_push_that_cannot_be_averaged_arrives_without_weight(
    core: WatchedCore, peer: Peer, fields: dict[str, float]
) -> None:
    peer.push(0, 1, **fields)
    (item,) = core.run.buffer
    assert peer.verdicts() == ["NONFINITE"]
    assert (item.weight, item.mean_loss, item.grad) == (0.0, 0.0, None)


def test_a_push_that_is_not_finite_does_not_hold_up_the_barrier(core: WatchedCore, peer: Peer) -> None:
    peer.push(0, 1, value=float("nan"))
    peer.push(1, 1)
    peer.push(2, 1)
    update(core)
    assert core.run.outer_step == 1


def test_after_the_end_everything_is_closed(core: WatchedCore, peer: Peer) -> None:
    core.admin.stop(now=True, reason="test")
    final = core.updates.ending()
    assert final is not None
    core.updates.end(final)
    peer.push(0, 1)
    assert core.run.telemetry.counters.verdicts == {"CLOSED": 1}


def test_credits_count_down_with_each_buffered_push(core: WatchedCore, peer: Peer) -> None:
    for lane in range(3):
        peer.push(lane, 1)
    assert [verdict.credits for verdict in peer.received("verdict")] == [2, 1, 0]


def test_credits_come_back_when_an_update_takes_the_pushes(core: WatchedCore, peer: Peer) -> None:
    run_one_step(core, peer)
    assert [verdict.credits for verdict in peer.received("verdict")][-3:] == [3, 3, 3]


def test_a_push_of_a_lane_that_moved_on_does_not_use_up_the_credit_of_the_others(core: WatchedCore) -> None:
    peer = Peer(core)
    peer.push(2, 1)
    lane = core.run.lanes[2]
    other = Peer(core, "w1")
    core.return_lane(
        peer.session_id,
        learner_pb2.LaneReturn(lane=2, fencing_token=lane.fencing_token, seq=1, reason="revoked"),
    )
    peer.push(0, 1)
    peer.push(1, 1)
    assert other.lanes() == [2]
    assert peer.verdicts() == ["ACCEPTED"] * 3


def test_a_push_is_rejected_before_its_body_is_read(core: WatchedCore, peer: Peer) -> None:
    peer.push(0, 1)
    message, _ = peer.estimate(0, 1)
    assert not core.pushes.announce(peer.session_id, message)
    assert peer.verdicts() == ["ACCEPTED", "DUPLICATE"]


def test_a_push_is_not_answered_while_its_body_is_wanted(core: WatchedCore, peer: Peer) -> None:
    message, _ = peer.estimate(0, 1)
    assert core.pushes.announce(peer.session_id, message)
    assert peer.verdicts() == []


def test_verdicts_are_counted(core: WatchedCore, peer: Peer) -> None:
    peer.push(0, 1)
    peer.push(0, 1)
    assert core.run.telemetry.counters.verdicts == {"ACCEPTED": 1, "DUPLICATE": 1}


def test_theta_is_announced_before_the_verdicts_of_its_update(core: WatchedCore, peer: Peer) -> None:
    for lane in range(3):
        peer.push(lane, 1)
    peer.listen()
    update(core)
    kinds = [message.WhichOneof("body") for message in peer.listen()]
    assert kinds == ["theta", "verdict", "verdict", "verdict"]


def test_the_last_theta_is_not_announced_for_nobody_should_begin_with_it(tmp_path: Path) -> None:
    core = make_core(tmp_path, outer_steps=1)
    peer = Peer(core)
    peer.listen()
    run_one_step(core, peer)
    assert [message.WhichOneof("body") for message in peer.listen()] == ["verdict"] * 6


def test_an_empty_update_still_counts_and_is_reported(core: WatchedCore, peer: Peer) -> None:
    for lane in range(3):
        peer.push(lane, 1, value=float("nan"))
    core.updates.take_batch()
    core.updates.applied(outcome(1, Effect.EMPTY))
    assert core.run.outer_step == 1
    assert core.run.telemetry.events.latest(1)[0].kind == "empty_update"


def test_a_large_theta_is_announced_without_its_body(tmp_path: Path) -> None:
    core = make_core(tmp_path, chunk_bytes=1024)
    peer = Peer(core)
    inline = [announcement.HasField("inline") for announcement in peer.received("theta")]
    assert inline == [codec.body_bytes(SCHEMA) <= 1024]


class TestAsync:
    @pytest.fixture
    def core(self, tmp_path: Path) -> WatchedCore:
        return make_core(tmp_path, mode="async", batch=2, max_staleness=1, credits=2)

    def test_a_batch_need_not_wait_for_every_lane(self, core: WatchedCore, peer: Peer) -> None:
        peer.push(0, 1)
        peer.push(1, 1)
        assert [item.lane for item in core.updates.take_batch() or () if item] == [0, 1]

    def test_gaps_in_seq_are_allowed(self, core: WatchedCore, peer: Peer) -> None:
        peer.push(0, 5)
        peer.push(0, 3)
        assert peer.verdicts() == ["ACCEPTED", "DUPLICATE"]

    def test_a_gradient_within_the_window_is_accepted(self, core: WatchedCore, peer: Peer) -> None:
        peer.push(0, 1)
        peer.push(1, 1)
        update(core)
        peer.push(2, 1, outer_step=0)
        assert peer.verdicts()[-1] == "ACCEPTED"

    def test_a_gradient_outside_the_window_is_stale(self, core: WatchedCore, peer: Peer) -> None:
        for outer_step in range(2):
            peer.push(0, 1 + outer_step)
            peer.push(1, 1 + outer_step)
            update(core)
        peer.push(2, 1, outer_step=0)
        assert peer.verdicts()[-1] == "STALE"

    def test_a_gradient_that_grows_stale_while_it_waits_is_dropped_with_a_late_verdict(
        self, core: WatchedCore, peer: Peer
    ) -> None:
        for lane, seq in [(0, 1), (1, 1), (0, 2), (1, 2), (2, 1)]:
            peer.push(lane, seq)
        update(core)
        update(core)
        assert peer.verdicts()[-1] == "STALE"
        assert len(core.run.buffer) == 0

    def test_more_than_the_credits_are_refused_until_an_update_frees_them(
        self, core: WatchedCore, peer: Peer
    ) -> None:
        core.admin.pause()
        for seq in (1, 2):
            for lane in range(3):
                peer.push(lane, seq)
        peer.push(0, 3)
        core.admin.resume()
        update(core)
        peer.push(0, 3)
        assert peer.verdicts()[6:7] == ["NO_CREDIT"]
        assert peer.verdicts()[-1] == "ACCEPTED"


def test_a_push_of_a_worker_that_has_left_counts_as_applied(core: WatchedCore, peer: Peer) -> None:
    for lane in range(3):
        peer.push(lane, 1)
    core.leave(peer.session_id, "test")
    update(core)
    assert core.run.telemetry.counters.verdicts == {"ACCEPTED": 3, "APPLIED": 3}
