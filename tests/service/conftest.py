"""Warnings are errors in the tests of the service."""

import pytest


def pytest_itemcollected(item: pytest.Item) -> None:
    """Turn warnings into errors."""
    item.add_marker(pytest.mark.filterwarnings("error"))
