import tomllib
from pathlib import Path

import numpy as np
import pytest

from learner.storage.checkpoint_store import CheckpointStore
from protos.exit_codes import CheckpointError, RunNotFoundError
from service.evaluation.trained import load_trained
from service.run.run_directory import RunDirectory
from tests.learner.checkpoints import make_checkpoint


def save(run: RunDirectory, outer_step: int) -> Path:
    """Save a theta of the run that is its outer step."""
    theta = {"log_lr": np.float32(outer_step)}
    return CheckpointStore(run.checkpoints_path, keep=3).save(make_checkpoint(outer_step, theta=theta))


def test_another_file_is_neither_run_nor_theta(tmp_path: Path) -> None:
    (tmp_path / "other").write_bytes(b"something else")
    with pytest.raises(RunNotFoundError, match="neither a run nor an exported theta"):
        load_trained(str(tmp_path / "other"))


def test_what_is_exported_of_a_file_is_the_same_file_again(exported: Path) -> None:
    again = load_trained(str(exported)).to_bytes()
    exported.write_bytes(again)
    assert load_trained(str(exported)).to_bytes() == again
    assert tomllib.loads(load_trained(str(exported)).experiment_toml)["seed"] == 3


def test_the_newest_checkpoint_of_a_run_is_loaded(run: RunDirectory) -> None:
    save(run, 5)
    save(run, 7)
    trained = load_trained(str(run.path))
    assert (trained.name, trained.outer_step, trained.theta["log_lr"]) == ("run", 7, 7.0)
    assert trained.directory == run.path


def test_a_damaged_checkpoint_is_passed_over(run: RunDirectory, caplog: pytest.LogCaptureFixture) -> None:
    save(run, 5)
    newest = save(run, 7)
    newest.write_bytes(newest.read_bytes()[:-1])
    assert load_trained(str(run.path)).outer_step == 5
    assert f"{newest} is skipped" in caplog.text


def test_a_run_without_an_intact_checkpoint_is_named(run: RunDirectory) -> None:
    with pytest.raises(CheckpointError, match="has no checkpoint that could be read"):
        load_trained(str(run.path))
