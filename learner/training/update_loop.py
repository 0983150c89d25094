"""The update thread's loop: wait for a batch, apply it, publish theta, and save."""

from typing import Final

from learner.coordination.core import LearnerCore
from learner.state.run_state import RunState
from learner.storage.records import Series
from learner.training.disk_writer import DiskWriter
from learner.training.outer import OuterLearner
from protos.exit_codes import CheckpointError

_LAST_SAVE_S: Final = 300.0  # the last checkpoint may have to wait for a slow disk


class UpdateLoop:
    """The body of the update thread, which alone uses the outer learner."""

    def __init__(self, core: LearnerCore, outer: OuterLearner, writer: DiskWriter, series: Series) -> None:
        self._updates = core.updates
        self._checkpoints = core.checkpoints
        self._outer = outer
        self._writer = writer
        self._series = series

    def run(self) -> RunState:
        """Apply batches until the run ends, and save the last theta; return the final state.

        Raises:
            CheckpointError: the last checkpoint could not be written.
            BrokenRunError: this process cannot continue, but a new one can.
        """
        while True:
            self._updates.wait()
            work = self._updates.take()
            if work.final is not None:
                return self._end(work.final)
            if work.batch is not None:
                record = self._updates.applied(self._outer.apply(work.outer_step, work.batch))
                self._series.append(record)
                self._writer.record(record)
            self._save()

    def _save(self) -> None:
        """Queue the checkpoints that are due, outside the core's lock, because the queue may block."""
        for job in self._checkpoints.take():
            if self._writer.busy and not job.requested:
                self._checkpoints.skipped(job)
            else:
                self._writer.save(job)

    def _end(self, final: RunState) -> RunState:
        jobs = self._checkpoints.last()
        for job in jobs:
            self._writer.save(job)
        for job in jobs:
            try:
                job.done.result(_LAST_SAVE_S)
            except (OSError, TimeoutError) as error:
                if not self._checkpoints.given_up():  # otherwise, the run ends for this very reason
                    raise CheckpointError(f"the last checkpoint could not be written: {error!r}") from error
        self._updates.end(final)
        return final
