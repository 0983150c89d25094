from pathlib import Path

import pytest

from learner.storage.checkpoint_store import CheckpointStore
from service.run.checkpoints import CheckpointFacts, checkpoints_of
from service.run.run_directory import RunDirectory
from tests.learner.checkpoints import make_checkpoint


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    """A run with checkpoints of steps 5 and 7."""
    run = RunDirectory(tmp_path)
    for outer_step in (7, 5):
        CheckpointStore(run.checkpoints_path, keep=3).save(make_checkpoint(outer_step))
    return run


def flip_last_byte(path: str) -> None:
    data = bytearray(Path(path).read_bytes())
    data[-1] ^= 0xFF
    Path(path).write_bytes(data)


def test_a_run_without_checkpoints_has_none(tmp_path: Path) -> None:
    assert checkpoints_of(RunDirectory(tmp_path)) == []


def test_checkpoints_are_listed_oldest_first_by_their_headers(run: RunDirectory) -> None:
    older, newer = checkpoints_of(run)
    assert (older.outer_step, newer.outer_step) == (5, 7)
    assert (newer.inner_steps, newer.elapsed_s, newer.problem) == (1234, 56.5, "")
    assert len(newer.theta_sha256) == 64
    assert newer.theta_sha256 != older.theta_sha256


def test_intact_checkpoints_pass_verification(run: RunDirectory) -> None:
    assert checkpoints_of(run, are_verified=True) == checkpoints_of(run)


def test_only_verification_finds_a_damaged_tensor(run: RunDirectory) -> None:
    path = checkpoints_of(run)[-1].path
    flip_last_byte(path)
    assert checkpoints_of(run)[-1].problem == ""
    damaged = checkpoints_of(run, are_verified=True)[-1]
    assert damaged == CheckpointFacts(path, problem=damaged.problem)
    assert damaged.problem != ""


def test_a_file_without_a_header_is_listed_with_its_problem(run: RunDirectory) -> None:
    path = run.checkpoints_path / "step-00000009.safetensors"
    path.write_bytes(b"damaged")
    newest = checkpoints_of(run)[-1]
    assert (newest.path, newest.outer_step) == (str(path), 0)
    assert newest.problem != ""
