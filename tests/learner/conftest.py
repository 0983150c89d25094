"""Fixtures of the learner's tests, in which warnings are errors."""

from collections.abc import Iterator

import pytest

from tests.learner.builders import OPENED
from tests.support.clock import Clock


def pytest_itemcollected(item: pytest.Item) -> None:
    """Turn warnings into errors."""
    item.add_marker(pytest.mark.filterwarnings("error"))


@pytest.fixture(autouse=True)
def _closed_files() -> Iterator[None]:
    yield
    OPENED.close()


@pytest.fixture
def clock() -> Clock:
    return Clock()
