"""Warnings are errors in the tests of the service, and a run for them."""

from pathlib import Path

import pytest

from service.run.run_directory import RunDirectory
from tests.support.experiments import TINY, toml_of


def pytest_itemcollected(item: pytest.Item) -> None:
    """Turn warnings into errors."""
    item.add_marker(pytest.mark.filterwarnings("error"))


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    """A run that was created and never launched."""
    run = RunDirectory(tmp_path / "run")
    run.create(toml_of(TINY))
    return run
