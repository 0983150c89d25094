"""The thread that moves theta: it waits for a batch, applies it, publishes, and then does its bookkeeping."""

from typing import Final

from learner.coordination.updates import Updates
from learner.state.run_state import RunState
from learner.storage.records import Series
from learner.training.disk_writer import DiskWriter
from learner.training.outer import OuterLearner
from protos.exit_codes import CheckpointError

_LAST_SAVE_S: Final = 300.0


class UpdateLoop:
    """Owns the outer learner. `run` is the body of its thread."""

    def __init__(self, updates: Updates, outer: OuterLearner, writer: DiskWriter, series: Series) -> None:
        self._updates = updates
        self._outer = outer
        self._writer = writer
        self._series = series

    def run(self) -> RunState:
        """Apply batches until the run ends for whatever reason; its last theta is in a checkpoint then.

        Raises:
            CheckpointError: that checkpoint could not be written.
            BrokenRunError: this process cannot continue; a new one can.
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
        """Hand over the checkpoints that are due. The queue may block, so not under the core's lock."""
        for job in self._updates.take_saves():
            if self._writer.busy and not job.requested:
                self._updates.save_skipped(job)
            else:
                self._writer.save(job)

    def _end(self, final: RunState) -> RunState:
        jobs = self._updates.last_saves()
        for job in jobs:
            self._writer.save(job)
        for job in jobs:
            try:
                job.done.result(_LAST_SAVE_S)
            except (OSError, TimeoutError) as error:
                if not self._updates.given_up():  # else the run ends because of that
                    raise CheckpointError(f"the last checkpoint could not be written: {error!r}") from error
        self._updates.end(final)
        return final
