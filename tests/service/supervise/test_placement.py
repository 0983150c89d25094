import pytest

from service.supervise.placement import PATIENCE_S, MemoryShortage, Placement
from tests.support.clock import Clock

LACK = "GPU: 1 wanted, none free"


@pytest.fixture
def clock() -> Clock:
    return Clock(start_s=3600.0)


@pytest.fixture
def placement(clock: Clock) -> Placement:
    return Placement(clock)


def test_a_worker_that_waits_briefly_is_not_reported(placement: Placement, clock: Clock) -> None:
    placement.note({"w0": LACK})
    clock.advance(PATIENCE_S - 0.1)
    assert (placement.states, placement.problems) == ({}, [])


def test_a_worker_that_waits_longer_is_reported_with_its_waiting_time(
    placement: Placement, clock: Clock
) -> None:
    placement.note({"w0": LACK})
    clock.advance(PATIENCE_S)
    placement.note({"w0": LACK})
    assert placement.states == {"w0": (f"no room: {LACK}", PATIENCE_S)}


def test_workers_that_lack_the_same_share_a_problem_since_the_first(
    placement: Placement, clock: Clock
) -> None:
    placement.note({"w0": LACK})
    clock.advance(60.0)
    placement.note({"w0": LACK, "w1": LACK, "w2": "CPU: 8 wanted, 4 free"})
    clock.advance(60.0)
    gpus, cpus = placement.problems
    assert gpus.startswith(f"no room for w0, w1 since 01:00:00 UTC: {LACK}")
    assert cpus.startswith("no room for w2 since 01:01:00 UTC: CPU")


def test_a_worker_that_was_placed_waits_from_zero_the_next_time(placement: Placement, clock: Clock) -> None:
    placement.note({"w0": LACK})
    clock.advance(100.0)
    placement.note({})
    assert placement.problems == []
    placement.note({"w0": LACK})
    assert placement.states == {}


@pytest.mark.parametrize(("outs", "affordable"), [(0, 4), (1, 4), (2, 3), (3, 3), (4, 2), (20, 1)])
def test_every_second_worker_that_ran_out_of_memory_costs_one(outs: int, affordable: int) -> None:
    shortage = MemoryShortage()
    for _ in range(outs):
        shortage.note("host")
    assert shortage.affordable(4) == affordable


def test_hosts_are_counted_separately() -> None:
    shortage = MemoryShortage()
    shortage.note("a")
    shortage.note("b")
    assert (shortage.affordable(4), shortage.problems) == (4, [])
    shortage.note("a")
    (problem,) = shortage.problems
    assert problem.startswith("a: workers ran out of memory 2 times, and 1 fewer run")


def test_a_new_number_of_workers_is_tried_in_full() -> None:
    shortage = MemoryShortage()
    for _ in range(2):
        shortage.note("host")
    shortage.forget()
    assert shortage.affordable(4) == 4


def test_no_workers_stay_no_workers() -> None:
    assert MemoryShortage().affordable(0) == 0
