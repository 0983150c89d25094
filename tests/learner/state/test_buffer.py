import pytest
from hypothesis import given
from hypothesis import strategies as st

from learner.state.buffer import BufferedPush, GradientBuffer


def contribution(lane: int, seq: int = 1, outer_step: int = 0) -> BufferedPush:
    return BufferedPush(lane, seq, outer_step, "w", 1, 1.0, 0.0, None, 0, 0.0)


def filled(lanes: list[int]) -> GradientBuffer:
    buffer = GradientBuffer(capacity=100)
    for seq, lane in enumerate(lanes):
        buffer.add(contribution(lane, seq))
    return buffer


def test_selection_serves_every_lane_before_any_lane_twice() -> None:
    assert [item.lane for item in filled([0, 0, 0, 1, 2]).fair(4)] == [0, 1, 2, 0]


def test_selection_is_oldest_first() -> None:
    assert [item.seq for item in filled([2, 0, 1]).fair(2)] == [0, 1]


def test_a_full_buffer_takes_nothing_more() -> None:
    buffer = GradientBuffer(capacity=1)
    buffer.add(contribution(0))
    assert buffer.full
    with pytest.raises(OverflowError, match="capacity=1"):
        buffer.add(contribution(1))


def test_what_was_taken_is_gone() -> None:
    buffer = filled([0, 1, 2])
    buffer.take(buffer.fair(2))
    assert [item.lane for item in buffer] == [2]


def test_what_was_dropped_is_returned() -> None:
    buffer = filled([0, 1, 2])
    assert [item.lane for item in buffer.drop(lambda item: item.lane != 1)] == [0, 2]
    assert buffer.lanes() == {1}


@given(lanes=st.lists(st.integers(0, 4), max_size=30), batch=st.integers(1, 10))
def test_a_lane_gets_a_second_place_only_when_every_lane_has_a_first(lanes: list[int], batch: int) -> None:
    chosen = [item.lane for item in filled(lanes).fair(batch)]
    counts = {lane: chosen.count(lane) for lane in set(lanes)}
    for lane, count in counts.items():
        others = [counts[other] for other in counts if lanes.count(other) > counts[other]]
        assert all(count <= other + 1 for other in others), (lane, counts)


@given(lanes=st.lists(st.integers(0, 4), max_size=30), batch=st.integers(1, 10))
def test_selection_takes_as_many_as_there_are(lanes: list[int], batch: int) -> None:
    assert len(filled(lanes).fair(batch)) == min(batch, len(lanes))
