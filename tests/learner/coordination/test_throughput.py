"""Lanes go where they are done soonest, by what workers' estimates have taken."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from learner.coordination.assignment import Candidate, assign, surplus
from learner.state.throughput import Throughput
from protos.unspool.v1.learner_pb2 import LaneReturn
from tests.learner.builders import Peer, WatchedCore, make_core, update
from tests.support.clock import Clock

paces = st.lists(st.floats(0.1, 10.0), min_size=1, max_size=5)


def settle(loads: list[int], paces: list[float]) -> list[int]:
    """Let lanes move until no worker is asked for any."""
    for _ in range(100):
        workers = [
            Candidate(f"w{number}", lanes, speed=pace)
            for number, (lanes, pace) in enumerate(zip(loads, paces, strict=True))
        ]
        moved = surplus(workers, on_the_way=0)
        if not moved:
            return loads
        left = [
            Candidate(worker.session_id, worker.lanes - moved.count(worker.session_id), speed=worker.speed)
            for worker in workers
        ]
        grants = [worker for _, worker in assign(range(len(moved)), left)]
        loads = [worker.lanes + grants.count(worker.session_id) for worker in left]
    raise AssertionError("lanes never come to rest")


@pytest.mark.parametrize(
    ("loads", "paces", "expected"),
    [
        ([3, 3], [2.0, 1.0], [4, 2]),
        ([6, 6], [3.0, 1.0], [9, 3]),
        ([2, 2, 2], [1.0, 1.0, 4.0], [1, 1, 4]),
        ([4, 0], [1.0, 1.0], [2, 2]),
        ([1, 1], [1.0, 8.0], [0, 2]),
    ],
)
def test_a_worker_twice_as_fast_has_twice_the_lanes(
    loads: list[int], paces: list[float], expected: list[int]
) -> None:
    assert settle(loads, paces) == expected


@given(paces=paces, data=st.data())
def test_lanes_come_to_rest_and_none_is_lost(paces: list[float], data: st.DataObject) -> None:
    loads = data.draw(st.lists(st.integers(0, 8), min_size=len(paces), max_size=len(paces)))
    assert sum(settle(loads, paces)) == sum(loads)


@given(paces=paces, free=st.integers(1, 20))
def test_no_other_worker_would_be_done_sooner_with_a_lane(paces: list[float], free: int) -> None:
    workers = [Candidate(f"w{number}", 0, speed=pace) for number, pace in enumerate(paces)]
    lanes = dict.fromkeys((worker.session_id for worker in workers), 0)
    for _, worker in assign(range(free), workers):
        lanes[worker] += 1
    slowest_s = max(lanes[worker.session_id] / worker.speed for worker in workers)
    assert all((lanes[worker.session_id] + 1) / worker.speed >= slowest_s - 1e-9 for worker in workers)


@given(factors=st.lists(st.floats(0.85, 1.15), min_size=3, max_size=3))
def test_what_has_come_to_rest_stays_there_while_paces_only_waver(factors: list[float]) -> None:
    paces = [1.0, 2.0, 3.0]
    loads = settle([4, 4, 4], paces)
    wavering = [pace * factor for pace, factor in zip(paces, factors, strict=True)]
    moved_back = settle(settle(loads, wavering), paces)
    assert sum(abs(a - b) for a, b in zip(loads, moved_back, strict=True)) <= 2


@given(
    loads=st.lists(st.tuples(st.integers(0, 8), st.floats(0.1, 10.0), st.booleans()), min_size=1, max_size=5),
    on_the_way=st.integers(0, 10),
)
def test_nobody_is_asked_for_more_than_it_has(loads: list[tuple[int, float, bool]], on_the_way: int) -> None:
    workers = [
        Candidate(f"w{number}", lanes, speed=pace, is_late=is_late)
        for number, (lanes, pace, is_late) in enumerate(loads)
    ]
    asked = surplus(workers, on_the_way)
    assert all(asked.count(worker.session_id) <= worker.lanes for worker in workers)


def test_a_small_gain_moves_nothing() -> None:
    assert surplus([Candidate("w0", 10, speed=1.0), Candidate("w1", 8, speed=1.01)], on_the_way=0) == []


def test_a_late_worker_gets_nothing_while_others_can_have_it() -> None:
    workers = [Candidate("w0", 3), Candidate("w1", 0, held={0}, is_late=True)]
    assert assign([0, 1], workers) == [(0, "w0"), (1, "w0")]
    assert assign([0], workers[1:]) == [(0, "w1")]


def paces_of(**compute_s: list[tuple[int, float]]) -> dict[str, float]:
    observed = Throughput(kinds=2)
    for worker, times in compute_s.items():
        for now_s, (lane, seconds) in enumerate(times):
            observed.observe(worker, lane, seconds, now_s)
    return observed.known()


def test_a_worker_that_takes_half_the_time_has_twice_the_pace() -> None:
    known = paces_of(quick=[(0, 1.0)] * 5, slow=[(0, 2.0)] * 5)
    assert known["quick"] == pytest.approx(2 * known["slow"])


def test_a_worker_whose_lanes_take_longer_everywhere_is_not_slow() -> None:
    known = paces_of(light=[(0, 1.0)] * 5, heavy=[(1, 9.0)] * 5)
    assert known == {"light": 1.0, "heavy": 1.0}


def test_a_few_estimates_say_nothing_yet() -> None:
    assert paces_of(new=[(0, 1.0)] * 3) == {}


def test_a_moment_in_which_a_worker_was_held_up_does_not_make_it_slow() -> None:
    observed = Throughput(kinds=1)
    for now_s in range(5):
        observed.observe("other", 0, 1.0, now_s)
        observed.observe("held up", 0, 1.0, now_s)
    for _ in range(100):
        observed.observe("held up", 0, 9.0, 4.5)
    assert observed.known() == {"other": 1.0, "held up": 1.0}


def test_an_estimate_that_compiles_does_not_make_a_worker_slow() -> None:
    known = paces_of(cold=[(0, 60.0), *[(0, 1.0)] * 5], warm=[(0, 1.0)] * 5)
    assert known["cold"] == known["warm"]


@pytest.mark.parametrize("seconds", [0.0, -1.0, float("nan"), float("inf")])
def test_times_that_cannot_be_are_left_out(seconds: float) -> None:
    assert paces_of(odd=[(0, seconds)] * 9) == {}


def test_those_who_left_are_forgotten() -> None:
    observed = Throughput(kinds=1)
    for now_s in range(5):
        observed.observe("gone", 0, 1.0, now_s)
    observed.forget_others(["here"])
    assert observed.known() == {}


def make_pair(tmp_path: Path, **changes: Any) -> tuple[WatchedCore, Clock, Peer, Peer]:
    """A run in `async` whose six lanes are shared by two workers."""
    defaults = {"lanes": 6, "mode": "async", "max_staleness": 9, "count": 2}
    clock = Clock()
    core = make_core(tmp_path, clock, credits=5, **(defaults | changes))
    return core, clock, Peer(core, "w0"), Peer(core, "w1")


def let_pass(core: WatchedCore, clock: Clock, *peers: Peer) -> None:
    """Let time pass until paces are looked at again, and workers give back what they are asked for."""
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


def test_estimates_that_come_too_late_tell_the_pace_as_well(tmp_path: Path) -> None:
    core, clock, quick, slow = make_pair(tmp_path, max_staleness=0, batch=1)
    quick.push(quick.lanes()[0], 1)
    update(core)
    for _ in range(5):
        clock.advance(1.0)
        slow.push(slow.lanes()[0], 1, outer_step=0, compute_s=2.0)
    assert slow.session_id in core.run.throughput.known()


def test_nothing_moves_without_measurements(tmp_path: Path) -> None:
    core, clock, first, second = make_pair(tmp_path)
    for seq in range(1, 4):
        clock.advance(1.0)
        first.push(first.lanes()[0], seq, compute_s=0.01)
    let_pass(core, clock, first, second)
    assert (len(first.lanes()), len(second.lanes())) == (3, 3)
