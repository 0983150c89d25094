"""The thread that writes: rows of the table, and checkpoints, in the order in which they came about.

One queue for both, so that the rows up to a checkpoint's version are on disk before the checkpoint is.
"""

import contextlib
import queue
from collections.abc import Callable
from concurrent.futures import Future
from typing import Final, TypeAlias

from learner.checkpoint_store import CheckpointFile
from learner.checkpointing import SaveJob
from learner.owned_thread import OwnedThread
from learner.records import Records, UpdateRecord
from learner.runtime import Runtime
from learner.saver import Saver

_QUEUED: Final = 4096  # updates may run this far ahead of a disk that stalls
_JOIN_S: Final = 300.0
_PROBLEM: Final = "metrics"

_Job: TypeAlias = UpdateRecord | SaveJob | None


class DiskWriter:
    """Owns the table and the checkpoint directory while it runs."""

    def __init__(
        self, runtime: Runtime, records: Records, saver: Saver, report: Callable[[BaseException], None]
    ) -> None:
        """Write with `records` and `saver`; `report` gets what they raise beyond a refusing disk."""
        self._runtime = runtime
        self._records = records
        self._saver = saver
        self._jobs: queue.Queue[_Job] = queue.Queue(_QUEUED)
        self._saving: Future[CheckpointFile] | None = None
        self._failing = False
        self._thread = OwnedThread("disk-writer", self._work, report)

    def start(self) -> None:
        """Begin to take jobs."""
        self._thread.start()

    def record(self, record: UpdateRecord) -> None:
        """Append an update to the table, soon."""
        self._jobs.put(record)

    @property
    def busy(self) -> bool:
        """Whether a checkpoint is on its way to the disk."""
        return self._saving is not None and not self._saving.done()

    def save(self, job: SaveJob) -> None:
        """Write a checkpoint, soon."""
        self._saving = job.done
        self._jobs.put(job)

    def close(self) -> None:
        """Write what is queued, and end the thread."""
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
            with self._runtime.locked() as core:
                core.run.problems[_PROBLEM] = f"could not be written: {error}"
            return
        if self._failing:
            self._failing = False
            with self._runtime.locked() as core:
                core.run.problems.pop(_PROBLEM, None)
