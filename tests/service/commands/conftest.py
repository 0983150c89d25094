from pathlib import Path

import pytest

from service.config.run_config import RunConfig
from service.config.toml_document import read_tables, write_tables
from service.run.run_directory import RunDirectory
from tests.service.commands.shell import QUADRATIC


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    """A run that was launched once, and has no learner."""
    run = RunDirectory(tmp_path / "run")
    run.create(write_tables(RunConfig.from_tables(read_tables(QUADRATIC)).to_tables()))
    return run
