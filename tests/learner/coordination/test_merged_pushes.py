"""Pushes that carry the weighted mean of several estimates: all of them are taken, or none."""

from collections import Counter
from pathlib import Path

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from learner.coordination.pushes import Body
from learner.coordination.status import build_status
from learner.state.buffer import BufferedPush, Estimate, GradientBuffer
from learner.training.outer import OuterLearner
from protos import codec
from protos.unspool.v1 import learner_pb2
from protos.unspool.v1.learner_pb2 import GradientEstimatorOut, Part, PushVerdict, UnrollInfo
from tests.learner.builders import (
    EXPERIMENT,
    SCHEMA,
    THETA_SHAPE,
    Peer,
    WatchedCore,
    gradient_body,
    make_core,
    make_settings,
    outcome,
)
from tests.learner.running import HandWrittenWorker, RunningLearner

LANES = 6


@pytest.fixture
def core(tmp_path: Path) -> WatchedCore:
    return make_core(tmp_path, mode="async", batch=4, max_staleness=2, lanes=LANES, credits=2, count=1)


@pytest.fixture
def peer(core: WatchedCore) -> Peer:
    return Peer(core)


def part(core: WatchedCore, lane: int, seq: int = 1, **fields: object) -> Part:
    defaults = {
        "lane": lane,
        "fencing_token": core.run.lanes[lane].fencing_token if lane < LANES else 1,
        "seq": seq,
        "outer_step": core.run.outer_step,
        "weight": 2.0,
        "mean_loss": float(lane),
        "unroll_info": UnrollInfo(inner_steps=5, inner_step_mean=7.0),
        "compute_s": 0.5,
    }
    return Part(**(defaults | fields))


def push_merged(peer: Peer, *parts: Part, body: Body | None = None, **fields: object) -> None:
    peer.pushes += 1
    data = gradient_body(1.0)
    grad = codec.tensors(data, 1, 1 << 20)
    message = GradientEstimatorOut(push_id=peer.pushes, parts=parts, grad=grad, **fields)
    peer.core.pushes.receive(peer.session_id, message, body or Body.read(message, data, SCHEMA))


def last_verdict(peer: Peer) -> PushVerdict:
    return peer.received("verdict")[-1]


def rejections(peer: Peer) -> list[tuple[int, str]]:
    return [
        (each.lane, learner_pb2.Verdict.Name(each.verdict))
        for each in last_verdict(peer).parts
        if each.detail
    ]


def apply(core: WatchedCore) -> None:
    core.updates.applied(outcome(core.run.outer_step + 1))


def test_every_part_moves_its_lane_and_counts_as_an_estimate(core: WatchedCore, peer: Peer) -> None:
    push_merged(peer, part(core, 0), part(core, 3, seq=2))
    assert peer.verdicts() == ["ACCEPTED"]
    status = build_status(core.run)
    assert [lane.seq for lane in status.lanes] == [1, 0, 0, 2, 0, 0]
    assert [status.lanes[lane].loss for lane in (0, 3)] == [0.0, 3.0]
    assert (status.workers[0].estimates, status.buffered) == (2, 2)


def test_the_batch_counts_estimates_and_not_pushes(core: WatchedCore, peer: Peer) -> None:
    push_merged(peer, part(core, 0), part(core, 1), part(core, 2))
    assert core.updates.take_batch() is None
    push_merged(peer, part(core, 3))
    batch = core.updates.take_batch()
    assert batch is not None
    assert [None if item is None else len(item.estimates) for item in batch] == [3, 1, None, None]


def test_all_watermarks_advance_with_the_update(core: WatchedCore, peer: Peer) -> None:
    push_merged(peer, *(part(core, lane) for lane in range(4)))
    assert core.updates.take_batch() is not None
    assert [lane.applied for lane in core.run.lanes] == [0] * LANES
    apply(core)
    assert [lane.applied for lane in core.run.lanes] == [1, 1, 1, 1, 0, 0]
    assert peer.verdicts() == ["ACCEPTED", "APPLIED"]


def test_the_counters_and_the_record_have_every_part(core: WatchedCore, peer: Peer) -> None:
    peer.push(5, 1)
    push_merged(peer, *(part(core, lane) for lane in range(3)))
    core.updates.take_batch()
    apply(core)
    push_merged(peer, part(core, 0, seq=2, outer_step=0), *(part(core, lane, seq=2) for lane in (1, 2, 3)))
    core.updates.take_batch()
    apply(core)
    assert core.run.telemetry.counters.staleness == {0: 4 + 3, 1: 1}
    last = core.run.telemetry.counters.last_update
    assert last is not None
    assert (last.staleness_mean, last.staleness_max, last.contributions) == (0.25, 1, 4)
    assert core.run.telemetry.counters.inner_steps == 5 + 3 * 5 + 4 * 5


def test_one_duplicate_keeps_all_out_and_every_offender_is_named(core: WatchedCore, peer: Peer) -> None:
    peer.push(1, 1)
    peer.push(4, 1)
    push_merged(peer, part(core, 0), part(core, 1), part(core, 4), part(core, 2, fencing_token=1))
    assert peer.verdicts()[-1] == "DUPLICATE"
    assert rejections(peer) == [(1, "DUPLICATE"), (4, "DUPLICATE"), (2, "NOT_LEASED")]
    assert (core.run.lanes[0].accepted, len(core.run.buffer)) == (0, 2)


def test_without_the_offenders_the_rest_is_taken(core: WatchedCore, peer: Peer) -> None:
    peer.push(1, 1)
    push_merged(peer, part(core, 0), part(core, 1))
    push_merged(peer, part(core, 0))
    assert peer.verdicts() == ["ACCEPTED", "DUPLICATE", "ACCEPTED"]


def test_a_repeated_merged_push_is_a_duplicate_part_by_part(core: WatchedCore, peer: Peer) -> None:
    for _ in range(2):
        push_merged(peer, part(core, 0), part(core, 1))
    assert peer.verdicts() == ["ACCEPTED", "DUPLICATE"]
    assert rejections(peer) == [(0, "DUPLICATE"), (1, "DUPLICATE")]


def test_the_same_estimate_twice_in_one_push_is_a_duplicate(core: WatchedCore, peer: Peer) -> None:
    push_merged(peer, part(core, 0, seq=1), part(core, 0, seq=2), part(core, 0, seq=2))
    assert rejections(peer) == [(0, "DUPLICATE")]


def test_a_lane_may_have_two_estimates_in_one_push(core: WatchedCore, peer: Peer) -> None:
    push_merged(peer, part(core, 0, seq=1), part(core, 0, seq=2))
    assert peer.verdicts() == ["ACCEPTED"]
    assert core.run.lanes[0].accepted == 2


@pytest.mark.parametrize(("outer_step", "verdict"), [(0, "STALE"), (4, "FUTURE")])
def test_each_part_has_its_own_age(core: WatchedCore, peer: Peer, outer_step: int, verdict: str) -> None:
    for seq in range(1, 4):
        push_merged(peer, *(part(core, lane, seq) for lane in range(4)))
        core.updates.take_batch()
        apply(core)
    push_merged(peer, part(core, 4), part(core, 5, outer_step=outer_step))
    assert rejections(peer) == [(5, verdict)]


def test_it_expires_with_its_oldest_part(core: WatchedCore, peer: Peer) -> None:
    for seq in range(1, 3):
        push_merged(peer, *(part(core, lane, seq) for lane in range(4)))
        core.updates.take_batch()
        apply(core)
    push_merged(peer, part(core, 4), part(core, 5, outer_step=0))
    core.run.applying = [contribution(0, np.zeros(1), 1.0)]  # an update of which it is no part
    apply(core)
    assert peer.verdicts()[-1] == "STALE"
    assert len(core.run.buffer) == 0


def test_more_parts_than_lanes_are_too_many(core: WatchedCore, peer: Peer) -> None:
    push_merged(peer, *(part(core, 0, seq) for seq in range(1, LANES + 2)))
    assert (peer.verdicts(), last_verdict(peer).detail) == (["TOO_LARGE"], "7 parts; there are 6 lanes")


@pytest.mark.parametrize("mode", ["sync", "quorum"])
def test_where_the_order_of_the_sum_counts_nothing_is_merged(tmp_path: Path, mode: str) -> None:
    core = make_core(tmp_path, mode=mode, lanes=LANES)
    peer = Peer(core)
    push_merged(peer, part(core, 0), part(core, 1))
    assert (peer.verdicts(), last_verdict(peer).detail) == (
        ["SCHEMA_MISMATCH"],
        f"merged, which {mode} does not accept",
    )


def test_one_that_is_not_finite_weighs_nothing_and_blames_no_lane(core: WatchedCore, peer: Peer) -> None:
    push_merged(peer, part(core, 0), part(core, 1), body=Body(finite=False))
    assert peer.verdicts() == ["NONFINITE"]
    (item,) = core.run.buffer
    assert (item.weight, item.grad, len(item.estimates)) == (0.0, None, 2)
    assert core.run.lanes[0].nonfinite_in_a_row == 0


@pytest.mark.parametrize("weight", [-1.0, float("nan"), float("inf")])
def test_a_part_with_an_impossible_weight_makes_it_weigh_nothing(
    core: WatchedCore, peer: Peer, weight: float
) -> None:
    push_merged(peer, part(core, 0, weight=0.5), part(core, 1, weight=weight))
    assert peer.verdicts() == ["NONFINITE"]


def test_weight_loss_and_age_are_what_the_parts_say(core: WatchedCore, peer: Peer) -> None:
    parts = [part(core, 1, weight=1.0), part(core, 4, weight=3.0)]
    push_merged(peer, *parts, weight=99.0, mean_loss=99.0, outer_step=99)
    (item,) = core.run.buffer
    assert (item.weight, item.mean_loss, item.outer_step) == (4.0, (1.0 * 1 + 3.0 * 4) / 4, 0)


def test_without_a_credit_it_is_rejected_before_its_body_is_read(core: WatchedCore, peer: Peer) -> None:
    for seq in (1, 2):
        push_merged(peer, *(part(core, lane, seq) for lane in range(LANES)))
    message = GradientEstimatorOut(push_id=9, parts=[part(core, 0, seq=3)])
    assert not core.pushes.announce(peer.session_id, message)
    assert peer.verdicts() == ["ACCEPTED", "ACCEPTED", "NO_CREDIT"]


def contribution(
    lane: int, grad: np.ndarray, weight: float, merged: tuple[Estimate, ...] = ()
) -> BufferedPush:
    shapes = jax.tree.leaves(THETA_SHAPE)
    sizes = np.cumsum([int(np.prod(leaf.shape)) for leaf in shapes])[:-1]
    leaves = [
        np.asarray(piece, leaf.dtype).reshape(leaf.shape)
        for piece, leaf in zip(np.split(grad, sizes), shapes, strict=True)
    ]
    return BufferedPush(lane, 1, 0, "w", 1, weight, 1.0, leaves, 1, 0.0, merged)


def theta_after(batch: list[BufferedPush | None]) -> np.ndarray:
    outer = OuterLearner(EXPERIMENT, len(batch))
    outer.initialise()
    return np.frombuffer(outer.apply(0, batch).published.body, np.float32)


@pytest.mark.parametrize("first", [2, 3, 4])
def test_the_mean_of_merged_parts_is_the_mean_of_the_parts(first: int) -> None:
    draws = np.random.default_rng(3)
    size = sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(THETA_SHAPE))
    grads, weights = draws.normal(size=(4, size)), draws.uniform(1, 100, size=4)
    apart = theta_after([contribution(lane, grads[lane], weights[lane]) for lane in range(4)])
    mean = np.average(grads[:first], axis=0, weights=weights[:first])
    merged = contribution(0, mean, weights[:first].sum(), tuple(Estimate(i, 1, 0) for i in range(first)))
    rest = [contribution(lane, grads[lane], weights[lane]) for lane in range(first, 4)]
    together = theta_after([merged, *rest, *[None] * (first - 1)])
    np.testing.assert_allclose(together, apart, rtol=1e-5, atol=1e-6)


def buffered(pushes: list[list[int]]) -> GradientBuffer:
    """A buffer with pushes that hold the next estimates of these lanes."""
    buffer = GradientBuffer(1000)
    seqs: Counter[int] = Counter()
    for lanes in pushes:
        seqs.update(lanes)
        merged = tuple(Estimate(lane, seqs[lane], 0) for lane in lanes)
        buffer.add(BufferedPush(lanes[0], 1, 0, "w", 1, 1.0, 0.0, None, 0, 0.0, merged))
    return buffer


def test_a_mean_is_chosen_by_the_turn_of_its_lane_that_was_served_most() -> None:
    buffer = buffered([[0], [0, 1], [2]])
    assert [[lane for lane, _, _ in item.estimates] for item in buffer.fair(2)] == [[0], [2]]
    assert buffer.count({0}) == 2
    assert buffer.lanes() == {0, 1, 2}


@given(
    pushes=st.lists(st.lists(st.integers(0, 5), min_size=1, max_size=4, unique=True), max_size=30),
    batch=st.integers(1, 12),
)
def test_nothing_of_a_lane_overtakes_what_came_before_it(pushes: list[list[int]], batch: int) -> None:
    buffer = buffered(pushes)
    chosen = buffer.fair(batch)
    estimates = [estimate for item in chosen for estimate in item.estimates]
    for lane in range(6):
        seqs = [estimate.seq for estimate in estimates if estimate.lane == lane]
        assert seqs == list(range(1, len(seqs) + 1))
    buffer.take(chosen)
    assert len(buffer) == sum(map(len, pushes)) - len(estimates)
    assert len(estimates) >= min(batch, sum(map(len, pushes)))


@pytest.mark.parametrize(("mode", "offered"), [("sync", False), ("quorum", False), ("async", True)])
def test_only_async_offers_to_take_merged_pushes(tmp_path: Path, mode: str, offered: bool) -> None:
    with RunningLearner(make_settings(tmp_path, mode=mode)) as running:
        reply = HandWrittenWorker(running).join()
    assert (reply.merges, reply.lease_ttl_s) == (offered, 30.0)
