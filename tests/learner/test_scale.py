"""The desired number of workers, and what of it is read back from a file."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from learner.scale import Scale, WorkerRange

counts = st.integers(0, 50)


@pytest.mark.parametrize(
    ("workers", "lanes", "expected"), [(5, 100, 5), (1, 100, 2), (50, 100, 8), (50, 6, 6), (50, 1, 2)]
)
def test_a_number_is_clipped_to_the_range_and_to_the_lanes(workers: int, lanes: int, expected: int) -> None:
    assert WorkerRange(2, 8).nearest(workers, lanes) == expected


@given(fewest=counts, more=counts, workers=counts, lanes=counts)
def test_the_result_is_in_the_range_and_stays(fewest: int, more: int, workers: int, lanes: int) -> None:
    bounds = WorkerRange(fewest, fewest + more)
    nearest = bounds.nearest(workers, lanes)
    assert bounds.fewest <= nearest <= bounds.most
    assert bounds.nearest(nearest, lanes) == nearest


@pytest.mark.parametrize("scale", [Scale(3), Scale(0), Scale(3, WorkerRange(1, 8))])
def test_a_scale_is_read_back_from_json(scale: Scale) -> None:
    assert Scale.of(json.loads(json.dumps(scale))) == scale


@pytest.mark.parametrize("value", [None, 3, [], [3], ["3", None], [3, [1]], [3, [1, "8"]], {"workers": 3}])
def test_another_value_is_not_a_scale(value: Any) -> None:
    assert Scale.of(value) is None
