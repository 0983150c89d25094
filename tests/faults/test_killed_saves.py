"""A learner that is killed while it saves: the newest checkpoint that there is, is whole."""

import random
import time
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from learner.storage.checkpoint_store import CheckpointStore
from tests.faults.processes import fork_server
from tests.learner.checkpoints import CONFIG, LIKE, make_checkpoint

pytestmark = pytest.mark.slow

KILLS = 200


def save_for_ever(directory: Path, version: int, saved: Connection) -> None:
    """Save one version after another, and tell of each."""
    store = CheckpointStore(directory, keep=3)
    while True:
        store.save(make_checkpoint(version))
        saved.send(version)
        version += 1


def killed_while_saving(directory: Path, version: int, lives_s: float) -> int:
    """Let a process save from `version` on, and kill it; returns the last version that it had saved."""
    ours, theirs = fork_server().Pipe(duplex=False)
    process = fork_server().Process(target=save_for_ever, args=(directory, version, theirs))
    process.start()
    theirs.close()
    saved = ours.recv()
    time.sleep(lives_s)  # not to wait for anything: it decides what the process is at when it dies
    process.kill()
    process.join()
    while ours.poll():
        try:
            saved = ours.recv()
        except EOFError:
            break
    return int(saved)


def test_two_hundred_kills_leave_a_whole_checkpoint_each(tmp_path: Path) -> None:
    draws, store, version = random.Random(0), CheckpointStore(tmp_path, keep=3), 2
    reports: list[str] = []
    for _ in range(KILLS):
        saved = killed_while_saving(tmp_path, version, draws.uniform(0.0, 0.01))
        store.remove_partial()
        newest = store.load_newest(LIKE, CONFIG, lambda _: None, reports.append)
        assert newest is not None
        assert saved <= newest.outer_step <= saved + 1  # the last one may have been whole but not told of
        version = newest.outer_step + 1
    assert reports == []
