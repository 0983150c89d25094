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
