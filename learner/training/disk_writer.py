"""The disk writer thread, which writes metrics rows and checkpoints in the order of their updates.

Both share one queue, so that the rows up to a checkpoint's outer step are on disk before the checkpoint.
"""

import contextlib
import queue
from collections.abc import Callable
from concurrent.futures import Future
from typing import Final, TypeAlias

from learner.coordination.checkpointing import Checkpoints, SaveJob
from learner.coordination.updates import Updates
from learner.storage.checkpoint import Checkpoint
from learner.storage.checkpoint_store import CheckpointFile, CheckpointStore
from learner.storage.records import Records
from learner.storage.snapshots import SnapshotStore
from learner.storage.update_record import UpdateRecord
from learner.threads import OwnedThread
from protos.exit_codes import FencedError

_QUEUED: Final = 4096  # the number of jobs by which updates may run ahead of a stalled disk
_JOIN_S: Final = 300.0

_Job: TypeAlias = UpdateRecord | SaveJob | None


class Saver:
    """Writes checkpoints, and deletes the lane states that no checkpoint needs anymore."""

    def __init__(self, checkpoints: Checkpoints, store: CheckpointStore, snapshots: SnapshotStore) -> None:
        self._checkpoints = checkpoints
        self._store = store
        self._snapshots = snapshots

    def save(self, job: SaveJob) -> None:
        """Write a checkpoint; report disk errors instead of raising them.

        Raises:
            FencedError: another learner owns the run directory.
        """
        checkpoint = job.checkpoint
        try:
            self._snapshots.make_durable(checkpoint.snapshots())
            path = self._store.save(checkpoint)
            self._prune_snapshots(checkpoint)
        except (OSError, FencedError) as error:
            self._checkpoints.failed(str(error))
            job.done.set_exception(error)
            if isinstance(error, FencedError):
                raise
            return
        file = CheckpointFile(path, checkpoint.outer_step, checkpoint.theta_sha256)
        self._checkpoints.saved(file)
        job.done.set_result(file)

    def _prune_snapshots(self, checkpoint: Checkpoint) -> None:
        """Delete the lane states that are older than this checkpoint's and that no other checkpoint needs.

        Newer ones are kept, because the next checkpoint may already be captured and needs those at or before
        its watermarks.
        """
        oldest = {ref.lane: ref.seq for ref in checkpoint.snapshots()}
        referenced = self._store.referenced_snapshots()
        unneeded = [
            (lane, seq)
            for lane, seq in self._snapshots.stored()
            if seq < oldest.get(lane, 0) and (lane, seq) not in referenced
        ]
        self._checkpoints.forget_snapshots(unneeded)
        for lane, seq in unneeded:
            self._snapshots.remove(lane, seq)


class DiskWriter:
    """The thread that alone writes the metrics table and the checkpoint directory."""

    def __init__(
        self, updates: Updates, records: Records, saver: Saver, report: Callable[[BaseException], None]
    ) -> None:
        """Write with `records` and `saver`; call `report` with exceptions other than OSError."""
        self._updates = updates
        self._records = records
        self._saver = saver
        self._jobs: queue.Queue[_Job] = queue.Queue(_QUEUED)
        self._saving: Future[CheckpointFile] | None = None
        self._failing = False
        self._thread = OwnedThread("disk-writer", self._work, report)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def record(self, record: UpdateRecord) -> None:
        """Queue an update for the table."""
        self._jobs.put(record)

    @property
    def busy(self) -> bool:
        """Whether a checkpoint is queued or being written."""
        return self._saving is not None and not self._saving.done()

    def save(self, job: SaveJob) -> None:
        """Queue a checkpoint."""
        self._saving = job.done
        self._jobs.put(job)

    def close(self) -> None:
        """Write all queued jobs and end the thread."""
        self._jobs.put(None)
        self._thread.join(_JOIN_S)
        with contextlib.suppress(OSError):
            self._records.close()

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            if isinstance(job, SaveJob):
                self._saver.save(job)
            else:
                self._append(job)

    def _append(self, record: UpdateRecord) -> None:
        try:
            self._records.write(record)
        except OSError as error:
            self._failing = True
            self._updates.table_written(error)
            return
        if self._failing:
            self._failing = False
            self._updates.table_written(None)
