"""The checkpoints of a run as an operator sees them."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

from learner.errors import CorruptCheckpointError
from learner.storage.checkpoint import read_header, verify
from learner.storage.checkpoint_store import CheckpointStore
from service.run.run_directory import RunDirectory


@dataclasses.dataclass(frozen=True)
class CheckpointFacts:
    """What a checkpoint file says of itself.

    Attributes:
        path: of the file.
        outer_step: updates behind its theta; 0 if the file cannot be read.
        theta_sha256: of its theta; empty if the file cannot be read.
        elapsed_s: the run's time until then.
        inner_steps: computed until then.
        problem: what is wrong with the file; empty if nothing is known to be.
    """

    path: str
    outer_step: int = 0
    theta_sha256: str = ""
    elapsed_s: float = 0.0
    inner_steps: int = 0
    problem: str = ""


def checkpoints_of(run: RunDirectory) -> list[CheckpointFacts]:
    """Return the checkpoints of `run`, oldest first, by their headers."""
    return _facts(run, read_header)


def verified_checkpoints_of(run: RunDirectory) -> list[CheckpointFacts]:
    """Return the checkpoints of `run`, oldest first, with every byte of them checked."""
    return _facts(run, lambda path: verify(path.read_bytes()))


def _facts(run: RunDirectory, read: Callable[[Path], dict[str, str]]) -> list[CheckpointFacts]:
    return [_facts_of(path, read) for path in CheckpointStore(run.checkpoints_path, keep=1).paths()]


def _facts_of(path: Path, read: Callable[[Path], dict[str, str]]) -> CheckpointFacts:
    try:
        header = read(path)
    except (CorruptCheckpointError, OSError) as error:
        return CheckpointFacts(path=str(path), problem=str(error))
    return CheckpointFacts(
        path=str(path),
        outer_step=int(header["version"]),
        theta_sha256=header["theta_sha256"],
        elapsed_s=float(header["elapsed_s"]),
        inner_steps=int(header["inner_steps"]),
    )
