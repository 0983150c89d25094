"""A directory of checkpoints, of which the newest that verifies counts; and whether they reach the disk."""

import contextlib
import dataclasses
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Final

from learner.errors import (
    ConfigChangedError,
    CorruptCheckpointError,
    CorruptSnapshotError,
    NoValidCheckpointError,
)
from learner.storage import checkpoint as checkpoint_format
from learner.storage.checkpoint import Checkpoint
from learner.storage.files import remove_partial, write_durably
from unspool.types import PyTree

_SUFFIX: Final = ".safetensors"
_RETRY_S: Final = 10.0


@dataclasses.dataclass(frozen=True)
class CheckpointFile:
    """A checkpoint on disk, as far as its header says.

    Attributes:
        path: of the file.
        outer_step: of its theta.
        theta_sha256: its theta's digest.
    """

    path: Path
    outer_step: int
    theta_sha256: str


class CheckpointStore:
    """The files `step-<outer step>.safetensors` of a run directory's `checkpoints`.

    Args:
        directory: where they are.
        keep: how many.
        fence: raises `FencedError` once a later learner process owns the directory.
    """

    def __init__(self, directory: Path, keep: int, fence: Callable[[], None] = lambda: None) -> None:
        self._directory = directory
        self._keep = keep
        self._fence = fence

    def paths(self) -> list[Path]:
        """Return the files, oldest first."""
        return sorted(self._directory.glob(f"step-*{_SUFFIX}"))

    def path(self, outer_step: int) -> Path:
        """Return where the checkpoint of an outer step is or would be."""
        return self._directory / f"step-{outer_step:08d}{_SUFFIX}"

    def save(self, checkpoint: Checkpoint) -> Path:
        """Write a checkpoint durably, and delete those that are no longer kept.

        Raises:
            FencedError: the directory is another learner's now; the checkpoint does not count.
            OSError: the disk refused; earlier checkpoints are untouched.
        """
        path = self.path(checkpoint.outer_step)
        data = checkpoint_format.encode(checkpoint)
        write_durably(path, data, writer=f"epoch-{checkpoint.term}", before_rename=self._fence)
        for old in self.paths()[: -self._keep]:
            old.unlink(missing_ok=True)
        return path

    def remove_partial(self) -> None:
        """Delete what earlier learners had only begun to write, so that none of them can finish it."""
        remove_partial(self._directory)

    def load_newest(
        self,
        like: PyTree,
        config_sha256: str,
        check_snapshots: Callable[[Checkpoint], None],
        report: Callable[[str], None],
    ) -> Checkpoint | None:
        """Return the newest checkpoint that can be resumed from, or None if there is none at all.

        Newer ones that cannot are set aside under another name, loudly.

        Args:
            like: shapes of `{"theta": ..., "learner_state": ...}`.
            config_sha256: of the configuration that is to go on.
            check_snapshots: raises `CorruptSnapshotError` where a lane state that a checkpoint needs is gone.
            report: is told of each file that is passed over, and why.

        Raises:
            NoValidCheckpointError: there are files, and none is whole. They stay where they are.
            ConfigChangedError: the newest whole one trains something else.
        """
        passed_over: list[Path] = []
        for path in reversed(self.paths()):
            try:
                checkpoint = _load(path, like, config_sha256)
                check_snapshots(checkpoint)
            except (CorruptCheckpointError, CorruptSnapshotError) as error:
                report(f"{path}: {error}; trying the one before")
                passed_over.append(path)
            else:
                for corrupt in passed_over:
                    corrupt.rename(corrupt.with_name(f"{corrupt.name}.corrupt"))
                return checkpoint
        if passed_over:
            raise NoValidCheckpointError(
                f"{self._directory}: none of {len(passed_over)} checkpoints can be resumed from; "
                "restore one from a backup, or move them away to start from the beginning"
            )
        return None

    def referenced_snapshots(self) -> set[tuple[int, int]]:
        """Return `(lane, seq)` of the lane states that the files need, as far as they can be read."""
        referenced = set()
        for path in self.paths():
            with contextlib.suppress(CorruptCheckpointError):
                marks = json.loads(checkpoint_format.read_header(path)["lanes"])
                referenced |= {(mark["lane"], mark["snapshot_seq"]) for mark in marks}
        return referenced


@dataclasses.dataclass
class CheckpointHealth:
    """What became of the checkpoints lately. All times are the learner's monotonic clock.

    Attributes:
        give_up_s: how long the run continues although none can be written.
    """

    give_up_s: float
    _failing_since_s: float = math.inf
    _retry_at_s: float = math.inf

    @property
    def is_failing(self) -> bool:
        """Whether the last one could not be written."""
        return self._failing_since_s < math.inf

    def succeeded(self) -> None:
        """Record one that is on the disk."""
        self._failing_since_s = self._retry_at_s = math.inf

    def failed(self, now_s: float) -> None:
        """Record one that could not be written."""
        self._failing_since_s = min(self._failing_since_s, now_s)
        self._retry_at_s = now_s + _RETRY_S

    def retry_due(self, now_s: float) -> bool:
        """Whether to try again: the disk may have room, and the next checkpoint be far away."""
        return now_s >= self._retry_at_s

    def retrying(self) -> None:
        """Record that it is being tried again."""
        self._retry_at_s = math.inf

    def given_up(self, now_s: float) -> bool:
        """Whether it has lasted too long: what is computed now may never be kept."""
        return now_s - self._failing_since_s > self.give_up_s


def _load(path: Path, like: PyTree, config_sha256: str) -> Checkpoint:
    data = path.read_bytes()
    metadata = checkpoint_format.verify(data)
    if metadata["config_sha256"] != config_sha256:
        raise ConfigChangedError(
            f"{path}: made by a configuration that trains something else (config_sha256 "
            f"{metadata['config_sha256'][:12]}, this one {config_sha256[:12]}); "
            "restore the old configuration, or begin a new run directory"
        )
    return checkpoint_format.decode(data, metadata, like)
