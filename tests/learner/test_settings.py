"""The rules of a learner's settings that involve more than one table."""

from pathlib import Path
from typing import Any

import pytest

from tests.learner.builders import make_settings
from unspool.config.config_error import ConfigError


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"gather_s": -1.0}, r"LearnerSettings\(gather_s=-1.0\): must not be negative"),
        ({"chunk_bytes": 1023}, "must be 1 KiB to 2 MiB"),
        ({"chunk_bytes": (2 << 20) + 1}, "must be 1 KiB to 2 MiB"),
    ],
)
def test_a_value_out_of_range_is_named(tmp_path: Path, changes: dict[str, Any], rule: str) -> None:
    with pytest.raises(ValueError, match=rule):
        make_settings(tmp_path, **changes)


def test_an_unsafe_exposure_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"learner\.host"):
        make_settings(tmp_path, host="0.0.0.0")


@pytest.mark.parametrize(
    ("changes", "capacity"), [({}, 15), ({"mode": "async", "batch": 2, "credits": 2}, 10)]
)
def test_the_buffer_holds_five_batches(tmp_path: Path, changes: dict[str, Any], capacity: int) -> None:
    assert make_settings(tmp_path, **changes).buffer_items == capacity
