"""A learner that is killed while it saves leaves a whole newest checkpoint."""

import random
import time
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from learner.storage.checkpoint_store import CheckpointStore
from learner.storage.files import remove_partial
from tests.faults.processes import fork_server
from tests.learner.checkpoints import CONFIG, LIKE, make_checkpoint

pytestmark = pytest.mark.slow

KILLS = 200


def save_endlessly(directory: Path, outer_step: int, saved: Connection) -> None:
    """Save one outer step after another, and report each."""
    store = CheckpointStore(directory, keep=3)
    while True:
        store.save(make_checkpoint(outer_step))
        saved.send(outer_step)
        outer_step += 1


def killed_while_saving(directory: Path, outer_step: int, runs_s: float) -> int:
    """Let a process save from `outer step` on, and kill it; returns the last outer step that it had saved."""
    ours, theirs = fork_server().Pipe(duplex=False)
    process = fork_server().Process(target=save_endlessly, args=(directory, outer_step, theirs))
    process.start()
    theirs.close()
    saved = ours.recv()
    time.sleep(runs_s)  # not to wait for anything: it decides at what point the process is killed
    process.kill()
    process.join()
    while ours.poll():
        try:
            saved = ours.recv()
        except EOFError:
            break
    return int(saved)


def test_two_hundred_kills_leave_a_whole_checkpoint_each(tmp_path: Path) -> None:
    draws, store, outer_step = random.Random(0), CheckpointStore(tmp_path, keep=3), 2
    reports: list[str] = []
    for _ in range(KILLS):
        saved = killed_while_saving(tmp_path, outer_step, draws.uniform(0.0, 0.01))
        remove_partial(store.directory)
        newest = store.load_newest(LIKE, CONFIG, lambda _: None, reports.append)
        assert newest is not None
        assert saved <= newest.outer_step <= saved + 1  # the last one may have been whole but not reported
        outer_step = newest.outer_step + 1
    assert reports == []
