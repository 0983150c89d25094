"""A disk that rejects writes: training continues, reports it, and saves again once there is room."""

import contextlib
import resource
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.faults.configs import one_hot_toml
from tests.faults.ledger import assert_exactly_once
from tests.faults.processes import FaultyRun, Status, faulty_run

pytestmark = [pytest.mark.end_to_end, pytest.mark.slow]


@contextlib.contextmanager
def no_file_may_grow(run: FaultyRun) -> Iterator[None]:
    """The kernel refuses every write of the learner, as if its quota were used up."""
    pid = run.processes["learner"].pid
    before = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, before)


@contextlib.contextmanager
def full(disk: Path) -> Iterator[None]:
    """Take all the room that there is."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))
    try:
        yield
    finally:
        filler.unlink()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of four MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(disk)], capture_output=True, text=True
    )
    if mount.returncode != 0:
        pytest.skip(f"a file system of its own needs root: {mount.stderr.strip()}")
    yield disk
    subprocess.run(["umount", "--lazy", str(disk)], check=True)


def checkpoint_step(status: Status) -> int:
    return int((status.get("checkpoint") or {}).get("outer_step", 0))


def assert_survives(run: FaultyRun, trouble: contextlib.AbstractContextManager[None]) -> None:
    """Check that training continues during `trouble` without checkpoints, and with them afterwards."""
    with trouble:
        troubled = run.wait_for(lambda status: any("checkpoint" in text for text in status["problems"]))
        later = run.wait_for_step(troubled["outer_step"] + 30)
        assert later["state"] == "DEGRADED"
        assert checkpoint_step(later) == checkpoint_step(troubled)
    healed = run.status()["outer_step"]
    again = run.wait_for(lambda status: checkpoint_step(status) >= healed and not status["problems"])
    assert again["state"] == "RUNNING"


def started(run: FaultyRun) -> FaultyRun:
    run.start("w0", "w1")
    run.wait_for(lambda status: checkpoint_step(status) >= 10)
    return run


def test_training_continues_while_no_file_may_grow(make_run: Callable[..., FaultyRun]) -> None:
    run = started(make_run(one_hot_toml(outer_steps=3000, ballast=100)))
    assert_survives(run, no_file_may_grow(run))
    assert_exactly_once(run)


def test_training_continues_while_the_disk_is_full(small_disk: Path) -> None:
    with faulty_run(small_disk / "run", one_hot_toml(outer_steps=3000, ballast=100)) as run:
        assert_survives(started(run), full(small_disk))
        assert_exactly_once(run)
