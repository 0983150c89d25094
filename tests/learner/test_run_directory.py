import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from learner.durable_file import write_durably
from learner.errors import RunLockedError
from learner.run_directory import RunDirectory

HOLD_AND_DIE = """
import os, sys
from pathlib import Path
from learner.run_directory import RunDirectory
with RunDirectory(Path(sys.argv[1])).locked():
    os.kill(os.getpid(), 9)
"""


@pytest.fixture
def directory(tmp_path: Path) -> RunDirectory:
    return RunDirectory(tmp_path)


def test_a_second_learner_is_refused_with_the_first_ones_pid(directory: RunDirectory) -> None:
    second = RunDirectory(directory.path).locked()
    with directory.locked(), pytest.raises(RunLockedError, match=f"pid {os.getpid()} on "):
        second.__enter__()


def test_a_refused_learner_does_not_wipe_the_holders_name(directory: RunDirectory) -> None:
    with directory.locked():
        for _ in range(2):
            with pytest.raises(RunLockedError, match=f"pid {os.getpid()}"), directory.locked():
                pass


def test_the_lock_ends_with_its_holder(directory: RunDirectory) -> None:
    died = subprocess.run([sys.executable, "-c", HOLD_AND_DIE, str(directory.path)], check=False)
    assert died.returncode == -9
    with directory.locked():
        assert json.loads((directory.path / "LOCK").read_text())["pid"] == os.getpid()


def test_each_life_has_its_epoch(directory: RunDirectory) -> None:
    assert [directory.begin_epoch(), RunDirectory(directory.path).begin_epoch()] == [1, 2]


def test_a_scale_command_outlives_the_learner(directory: RunDirectory) -> None:
    assert directory.workers_desired(configured=2) == 2
    directory.remember_scale(configured=2, desired=5)
    assert directory.workers_desired(configured=2) == 5


def test_a_configuration_that_changed_wins_over_an_old_scale_command(directory: RunDirectory) -> None:
    directory.remember_scale(configured=2, desired=5)
    assert directory.workers_desired(configured=3) == 3


def test_endpoints_are_there_while_somebody_listens(directory: RunDirectory) -> None:
    directory.write_endpoints({"run": "r", "learner": "127.0.0.1:1"})
    assert json.loads(directory.endpoints.read_text())["learner"] == "127.0.0.1:1"
    directory.clear_endpoints()
    assert not directory.endpoints.exists()


def test_a_durable_file_is_replaced_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "file"
    write_durably(path, b"one")
    write_durably(path, b"two")
    assert [(found.name, found.read_bytes()) for found in path.parent.iterdir()] == [("file", b"two")]
