import json
from pathlib import Path

import pytest

from learner.scale import Scale, WorkerRange
from learner.storage.run_directory import LearnerDirectory, Ports


@pytest.fixture
def directory(tmp_path: Path) -> LearnerDirectory:
    return LearnerDirectory(tmp_path)


def test_the_ports_of_the_last_start_are_remembered(directory: LearnerDirectory) -> None:
    directory.remember_ports(Ports(1, 2, 3))
    assert LearnerDirectory(directory.path).last_ports() == Ports(1, 2, 3)


@pytest.mark.parametrize("text", ["", "{", "[1]", '{"learner": 1, "other": 2}'])
def test_remembered_ports_that_cannot_be_read_are_any(directory: LearnerDirectory, text: str) -> None:
    (directory.path / "ports.json").write_text(text)
    assert directory.last_ports() == Ports(0, 0, 0)


def test_a_scale_command_outlives_the_learner(directory: LearnerDirectory) -> None:
    assert directory.scale(configured=Scale(2)) == Scale(2)
    directory.remember_scale(configured=Scale(2), wanted=Scale(5, WorkerRange(1, 8)))
    assert directory.scale(configured=Scale(2)) == Scale(5, WorkerRange(1, 8))


def test_a_configuration_that_changed_wins_over_an_old_scale_command(directory: LearnerDirectory) -> None:
    directory.remember_scale(configured=Scale(2), wanted=Scale(5))
    assert directory.scale(configured=Scale(3)) == Scale(3)


def test_endpoints_are_there_while_somebody_listens(directory: LearnerDirectory) -> None:
    directory.write_endpoints({"run": "r", "learner": "127.0.0.1:1"})
    assert json.loads(directory.endpoints.read_text())["learner"] == "127.0.0.1:1"
    directory.clear_endpoints()
    assert not directory.endpoints.exists()
