"""Relative speeds of workers, from the compute times of their estimates."""

import pytest

from learner.state.throughput import Throughput


def speeds_of(**compute_s: list[tuple[int, float]]) -> dict[str, float]:
    observed = Throughput(kinds=2)
    for worker, times in compute_s.items():
        for now_s, (lane, seconds) in enumerate(times):
            observed.observe(worker, lane, seconds, now_s)
    return observed.known(set(compute_s))


def test_a_worker_that_takes_half_the_time_has_twice_the_speed() -> None:
    known = speeds_of(quick=[(0, 1.0)] * 5, slow=[(0, 2.0)] * 5)
    assert known["quick"] == pytest.approx(2 * known["slow"])


def test_a_worker_whose_lanes_take_longer_everywhere_is_not_slow() -> None:
    known = speeds_of(light=[(0, 1.0)] * 5, heavy=[(1, 9.0)] * 5)
    assert known == {"light": 1.0, "heavy": 1.0}


def test_a_few_estimates_say_nothing_yet() -> None:
    assert speeds_of(new=[(0, 1.0)] * 3) == {}


def test_a_moment_in_which_a_worker_was_held_up_does_not_make_it_slow() -> None:
    observed = Throughput(kinds=1)
    for now_s in range(5):
        observed.observe("other", 0, 1.0, now_s)
        observed.observe("held up", 0, 1.0, now_s)
    for _ in range(100):
        observed.observe("held up", 0, 9.0, 4.5)
    assert observed.known({"other", "held up"}) == {"other": 1.0, "held up": 1.0}


def test_an_estimate_that_compiles_does_not_make_a_worker_slow() -> None:
    known = speeds_of(cold=[(0, 60.0), *[(0, 1.0)] * 5], warm=[(0, 1.0)] * 5)
    assert known["cold"] == known["warm"]


@pytest.mark.parametrize("seconds", [0.0, -1.0, float("nan"), float("inf")])
def test_times_that_cannot_be_are_left_out(seconds: float) -> None:
    assert speeds_of(odd=[(0, seconds)] * 9) == {}


def test_those_who_left_are_forgotten() -> None:
    observed = Throughput(kinds=1)
    for now_s in range(5):
        observed.observe("gone", 0, 1.0, now_s)
    assert observed.known({"here"}) == {}
