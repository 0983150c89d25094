"""Counts and rates of a learner process."""

import pytest

from learner.state.counters import Counters
from protos.unspool.v1 import learner_pb2
from tests.learner.storage.test_records import record


def applied(counters: Counters, *times_s: float, inner_steps: int = 15) -> None:
    for now_s in times_s:
        counters.applied(record(1)._replace(inner_steps=inner_steps), [0, 1], now_s)


def test_verdicts_are_counted_by_name() -> None:
    counters = Counters(0.0)
    for verdict in (learner_pb2.ACCEPTED, learner_pb2.STALE, learner_pb2.ACCEPTED):
        counters.judged(verdict)
    assert counters.verdicts == {"ACCEPTED": 2, "STALE": 1}


def test_the_staleness_of_each_applied_gradient_is_counted() -> None:
    counters = Counters(0.0)
    counters.applied(record(1), [0, 0, 2], now_s=1.0)
    counters.applied(record(2), [2], now_s=2.0)
    assert counters.staleness == {0: 2, 2: 2}
    assert counters.last_update == record(2)


def test_counts_of_the_run_continue_after_a_restart() -> None:
    counters = Counters(100.0, inner_steps=1000, elapsed_s=50.0)
    applied(counters, 110.0)
    assert counters.inner_steps == 1015
    assert counters.elapsed_s(120.0) == 70.0


def test_rates_are_those_since_the_start() -> None:
    counters = Counters(0.0, inner_steps=1000)
    applied(counters, 5.0, 10.0)
    assert counters.rates(10.0) == pytest.approx((0.2, 3.0))


def test_rates_forget_what_happened_more_than_half_a_minute_ago() -> None:
    counters = Counters(0.0)
    applied(counters, *range(1, 11))
    applied(counters, 100.0, 110.0)
    assert counters.rates(110.0) == pytest.approx((0.1, 1.5))


def test_a_run_without_recent_updates_slows_down_instead_of_showing_its_last_rate() -> None:
    counters = Counters(0.0)
    applied(counters, 1.0)
    assert counters.rates(101.0) == (0.0, 0.0)


def test_at_the_moment_of_the_start_rates_are_zero() -> None:
    assert Counters(7.0).rates(7.0) == (0.0, 0.0)
