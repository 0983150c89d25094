import pytest
from hypothesis import given
from hypothesis import strategies as st

from learner.coordination.assignment import Candidate, assign, surplus


def candidates(*lanes: int) -> list[Candidate]:
    return [Candidate(f"w{number}", count) for number, count in enumerate(lanes)]


loads = st.lists(st.integers(0, 8), min_size=1, max_size=6)


@given(loads=loads, free=st.integers(0, 20))
def test_every_free_lane_is_assigned_once(loads: list[int], free: int) -> None:
    grants = assign(range(free), candidates(*loads))
    assert sorted(lane for lane, _ in grants) == list(range(free))


@given(workers=st.integers(1, 6), free=st.integers(0, 20))
def test_fresh_workers_get_equal_shares(workers: int, free: int) -> None:
    grants = assign(range(free), candidates(*[0] * workers))
    shares = [sum(worker == f"w{number}" for _, worker in grants) for number in range(workers)]
    assert max(shares) - min(shares) <= 1


@given(loads=loads)
def test_what_is_asked_back_evens_the_loads(loads: list[int]) -> None:
    revoked = surplus(candidates(*loads), on_the_way=0)
    left = [load - revoked.count(f"w{number}") for number, load in enumerate(loads)]
    grants = assign(range(len(revoked)), candidates(*left))
    shares = [load + sum(worker == f"w{number}" for _, worker in grants) for number, load in enumerate(left)]
    assert max(shares) - min(shares) <= 1


@given(loads=loads)
def test_what_is_on_its_way_is_not_asked_for_again(loads: list[int]) -> None:
    revoked = surplus(candidates(*loads), on_the_way=0)
    left = [load - revoked.count(f"w{number}") for number, load in enumerate(loads)]
    assert surplus(candidates(*left), on_the_way=len(revoked)) == []


def test_a_lane_goes_to_the_worker_that_holds_its_state() -> None:
    workers = [Candidate("w0", 0), Candidate("w1", 0, held={0})]
    assert assign([0, 1], workers) == [(0, "w1"), (1, "w0")]


def test_a_state_held_does_not_make_loads_uneven() -> None:
    workers = [Candidate("w0", 0), Candidate("w1", 0, held={0, 1})]
    assert sorted(assign([0, 1], workers)) == [(0, "w1"), (1, "w0")]


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
