"""The directory of checkpoints, of which the newest valid one is resumed, and the health of saving them."""

import contextlib
import dataclasses
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
from learner.storage.files import write_durably
from learner.storage.snapshots import SnapshotRef
from protos.unspool.v1.admin_pb2 import CheckpointInfo
from unspool.types import PyTree

_SUFFIX: Final = ".safetensors"
_RETRY_S: Final = 10.0


@dataclasses.dataclass(frozen=True)
class CheckpointFile:
    """A checkpoint on disk, without its content.

    Attributes:
        path: the file's path.
        outer_step: the outer step of its theta.
        theta_sha256: the digest of its theta.
    """

    path: Path
    outer_step: int
    theta_sha256: str

    def info(self, age_s: float = 0.0) -> CheckpointInfo:
        """Return it as a message, with the time in seconds since it was written."""
        return CheckpointInfo(
            path=str(self.path), outer_step=self.outer_step, theta_sha256=self.theta_sha256, age_s=age_s
        )


class CheckpointStore:
    """The files `step-<outer step>.safetensors` in a run directory's `checkpoints`.

    Args:
        directory: the directory of the files.
        keep: how many checkpoints to keep.
        fence: raises `FencedError` once a later learner process owns the directory.
    """

    def __init__(self, directory: Path, keep: int, fence: Callable[[], None] = lambda: None) -> None:
        self.directory = directory
        self._keep = keep
        self._fence = fence

    def paths(self) -> list[Path]:
        """Return the files, oldest first."""
        return sorted(self.directory.glob(f"step-*{_SUFFIX}"))

    def path(self, outer_step: int) -> Path:
        """Return the path for the checkpoint of an outer step."""
        return self.directory / f"step-{outer_step:08d}{_SUFFIX}"

    def save(self, checkpoint: Checkpoint) -> Path:
        """Write a checkpoint durably, and delete those that are no longer kept.

        Raises:
            FencedError: another learner owns the directory; the checkpoint is discarded.
            OSError: the checkpoint could not be written; earlier ones are unchanged.
        """
        path = self.path(checkpoint.outer_step)
        data = checkpoint_format.encode(checkpoint)
        write_durably(path, data, writer=f"term-{checkpoint.term}", before_rename=self._fence)
        for old in self.paths()[: -self._keep]:
            old.unlink(missing_ok=True)
        return path

    def load_newest(
        self,
        like: PyTree,
        config_sha256: str,
        verify_snapshot: Callable[[SnapshotRef], None],
        report: Callable[[str], None],
    ) -> Checkpoint | None:
        """Return the newest checkpoint that can be resumed from, or None if there are no checkpoints.

        Newer, corrupt files are reported and renamed to `*.corrupt`.

        Args:
            like: the shapes of `{"theta": ..., "learner_state": ...}`.
            config_sha256: the digest of the configuration that is to be resumed.
            verify_snapshot: raises `CorruptSnapshotError` if a lane state is missing or corrupt.
            report: called with a text for each file that is skipped.

        Raises:
            NoValidCheckpointError: there are checkpoints, but none is valid. They are not renamed.
            ConfigChangedError: the newest valid checkpoint belongs to a different configuration.
        """
        passed_over: list[Path] = []
        for path in reversed(self.paths()):
            try:
                checkpoint = _load(path, like, config_sha256)
                for ref in checkpoint.snapshots():
                    verify_snapshot(ref)
            except (CorruptCheckpointError, CorruptSnapshotError) as error:
                report(f"{path}: {error}; trying the previous one")
                passed_over.append(path)
            else:
                for corrupt in passed_over:
                    corrupt.rename(corrupt.with_name(f"{corrupt.name}.corrupt"))
                return checkpoint
        if passed_over:
            raise NoValidCheckpointError(
                f"{self.directory}: none of {len(passed_over)} checkpoints can be resumed from; "
                "restore one from a backup, or move them away to start from the beginning"
            )
        return None

    def referenced_snapshots(self) -> set[tuple[int, int]]:
        """Return `(lane, seq)` of the lane states that the readable checkpoints need."""
        referenced = set()
        for path in self.paths():
            with contextlib.suppress(CorruptCheckpointError):
                marks = checkpoint_format.read_header(path)["lanes"]
                referenced |= {(mark.lane, mark.snapshot.seq) for mark in marks if mark.snapshot}
        return referenced


@dataclasses.dataclass
class CheckpointHealth:
    """The success of saving checkpoints. All times are on the learner's monotonic clock.

    Attributes:
        give_up_s: how long the run continues while no checkpoint can be written.
    """

    give_up_s: float
    _failing_since_s: float = math.inf
    _retry_at_s: float = math.inf

    @property
    def is_failing(self) -> bool:
        """Whether the last checkpoint could not be written."""
        return self._failing_since_s < math.inf

    def succeeded(self) -> None:
        """Record a checkpoint that was written."""
        self._failing_since_s = self._retry_at_s = math.inf

    def failed(self, now_s: float) -> None:
        """Record a checkpoint that could not be written."""
        self._failing_since_s = min(self._failing_since_s, now_s)
        self._retry_at_s = now_s + _RETRY_S

    def retry_due(self, now_s: float) -> bool:
        """Return whether to retry now, because the next scheduled checkpoint may be far away."""
        return now_s >= self._retry_at_s

    def retrying(self) -> None:
        """Record that a retry has started."""
        self._retry_at_s = math.inf

    def given_up(self, now_s: float) -> bool:
        """Return whether saving has failed for longer than `give_up_s`, so that training on may be futile."""
        return now_s - self._failing_since_s > self.give_up_s


def _load(path: Path, like: PyTree, config_sha256: str) -> Checkpoint:
    data = path.read_bytes()
    header = checkpoint_format.verify(data)
    if header["config_sha256"] != config_sha256:
        raise ConfigChangedError(
            f"{path}: made with the configuration of another experiment (config_sha256 "
            f"{header['config_sha256'][:12]}, this one {config_sha256[:12]}); "
            "restore the old configuration, or use a new run directory"
        )
    return checkpoint_format.decode(data, header, like)
