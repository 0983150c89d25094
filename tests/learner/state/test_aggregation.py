from typing import Literal

import pytest

from learner.state.aggregation import Aggregation, Async, Quorum, Sync, aggregation_of
from learner.state.arrivals import ArrivalTimes
from learner.state.buffer import BufferedPush, GradientBuffer
from learner.tables import AggregationTable


def buffer_of(*items: tuple[int, float]) -> GradientBuffer:
    buffer = GradientBuffer(capacity=100)
    for lane, arrived_s in items:
        buffer.add(BufferedPush(lane, 1, 0, "w", 1, 1.0, 0.0, None, 0, arrived_s))
    return buffer


ARRIVALS = ArrivalTimes(lanes=4, longest_s=30.0)
QUORUM = Quorum(AggregationTable(4, "quorum", quorum=0.5, grace_s=1.0), ARRIVALS)
RULES = [Sync(AggregationTable(4)), Async(AggregationTable(4, "async", max_staleness=1)), QUORUM]


@pytest.mark.parametrize(("mode", "rule"), [("sync", Sync), ("async", Async), ("quorum", Quorum)])
def test_the_mode_selects_the_rule(mode: Literal["sync", "async", "quorum"], rule: type[Aggregation]) -> None:
    table = AggregationTable(3, mode)
    selected = aggregation_of(table, ARRIVALS)
    assert (type(selected), selected.table) == (rule, table)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: type(rule).__name__)
def test_every_rule_takes_one_gradient_of_each_lane(rule: Sync | Async | Quorum) -> None:
    buffer = buffer_of((3, 0.0), (1, 0.0), (0, 0.0), (2, 0.0))
    assert rule.due_in_s(buffer, outer_step=0, now_s=0.0) == 0.0
    assert sorted(item.lane for item in rule.select(buffer) if item) == [0, 1, 2, 3]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: type(rule).__name__)
def test_every_rule_says_what_is_missing(rule: Sync | Async | Quorum) -> None:
    assert rule.shortfall(buffer_of((0, 0.0)), outer_step=0, now_s=0.0).split()[0] == (
        "1" if rule is QUORUM else "3"
    )
    assert rule.shortfall(buffer_of(*((lane, 0.0) for lane in range(4))), outer_step=0, now_s=0.0) == ""


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: type(rule).__name__)
def test_no_rule_takes_a_gradient_of_a_theta_that_is_not_there(rule: Sync | Async | Quorum) -> None:
    assert rule.reject(seq=1, made_at=1, outer_step=0) is not None


def test_a_quorum_waits_for_the_others_for_its_grace() -> None:
    buffer = buffer_of((0, 10.0), (2, 10.5))
    assert [QUORUM.due_in_s(buffer, outer_step=0, now_s=now_s) for now_s in (11.0, 11.5)] == [0.5, 0.0]
    assert [item and item.lane for item in QUORUM.select(buffer)] == [0, None, 2, None]


def test_a_quorum_of_all_lanes_does_not_wait() -> None:
    buffer = buffer_of(*((lane, 10.0) for lane in range(4)))
    assert QUORUM.due_in_s(buffer, outer_step=0, now_s=10.0) == 0.0


def test_a_quorum_carries_a_late_gradient_into_the_next_update() -> None:
    late = next(iter(buffer_of((1, 0.0))))
    assert not QUORUM.expired(late, outer_step=1)
    assert QUORUM.expired(late, outer_step=2)
