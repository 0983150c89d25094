"""The checkpoints of a run, listed for admins."""

import dataclasses
from pathlib import Path

from learner.errors import CorruptCheckpointError
from learner.storage.checkpoint import read_header, verify
from learner.storage.checkpoint_store import CheckpointStore
from service.run.run_directory import RunDirectory


@dataclasses.dataclass(frozen=True)
class CheckpointFacts:
    """The contents of a checkpoint file's header.

    Attributes:
        path: of the file.
        outer_step: of its theta; 0 if the file cannot be read.
        theta_sha256: of its theta; empty if the file cannot be read.
        elapsed_s: the run's time up to this checkpoint.
        inner_steps: computed up to this checkpoint.
        problem: what is wrong with the file; empty if no problem is known.
    """

    path: str
    outer_step: int = 0
    theta_sha256: str = ""
    elapsed_s: float = 0.0
    inner_steps: int = 0
    problem: str = ""


def checkpoints_of(run: RunDirectory, *, are_verified: bool = False) -> list[CheckpointFacts]:
    """Return the checkpoints of `run`, oldest first, by their headers or after verifying every byte."""
    paths = CheckpointStore(run.checkpoints_path, keep=1).paths()
    return [_read_checkpoint(path, are_verified) for path in paths]


def _read_checkpoint(path: Path, is_verified: bool) -> CheckpointFacts:
    try:
        header = verify(path.read_bytes()) if is_verified else read_header(path)
    except (CorruptCheckpointError, OSError) as error:
        return CheckpointFacts(path=str(path), problem=str(error))
    return CheckpointFacts(
        path=str(path),
        outer_step=header["outer_step"],
        theta_sha256=header["theta_sha256"],
        elapsed_s=header["elapsed_s"],
        inner_steps=header["inner_steps"],
    )
