"""The thread that moves theta: it waits for a batch, applies it, publishes, and then does its bookkeeping."""

import time
from collections.abc import Callable
from typing import Final

from learner.aggregation import Batch
from learner.checkpointing import CheckpointSchedule, SaveJob
from learner.core import LearnerCore
from learner.disk_writer import DiskWriter
from learner.errors import BrokenRunError
from learner.outcome import Outcome
from learner.outer import OuterLearner
from learner.phase import RunState
from learner.records import UpdateRecord
from learner.runtime import Runtime
from learner.series import Series
from protos.exit_codes import CheckpointError

_LAST_SAVE_S: Final = 300.0


class UpdateLoop:
    """Owns the outer learner. `run` is the body of its thread."""

    def __init__(
        self,
        runtime: Runtime,
        outer: OuterLearner,
        schedule: CheckpointSchedule,
        writer: DiskWriter,
        series: Series,
        *,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._runtime = runtime
        self._outer = outer
        self._schedule = schedule
        self._writer = writer
        self._series = series
        self._clock = clock
        self._wall_clock = wall_clock
        self._idle_since_s = clock()

    def run(self) -> RunState:
        """Apply batches until the run ends, however it does; its last theta is in a checkpoint then.

        Raises:
            CheckpointError: that checkpoint could not be written.
            BrokenRunError: this life of the learner cannot go on; the next one can.
        """
        while True:
            self._runtime.wait_until(self._has_work)
            with self._runtime.locked() as core:
                final = core.ending()
                batch = None if final else core.take_batch()
                broken, version = core.run.broken, core.run.version
            if broken:
                raise BrokenRunError(broken)
            if final is not None:
                return self._end(final)
            if batch is not None:
                self._update(version, batch)
            self._save(updated=batch is not None)

    def _has_work(self, core: LearnerCore) -> bool:
        return (
            bool(core.run.broken)
            or core.ending() is not None
            or core.batch_ready()
            or self._schedule.due(core.run)
        )

    def _update(self, version: int, batch: Batch) -> None:
        began_s = self._clock()
        outcome = self._outer.apply(version, batch)
        with self._runtime.locked() as core:
            core.applied(outcome)
            elapsed_s = core.run.tally.elapsed_s(core.run.clock())
        announced_s = self._clock()
        record = self._describe(
            outcome, batch, elapsed_s, began_s - self._idle_since_s, announced_s - began_s
        )
        self._idle_since_s = announced_s
        self._series.append(record)
        self._writer.record(record)

    def _save(self, *, updated: bool) -> None:
        """Hand over the checkpoints that are due. The queue may block, so not under the lock."""
        with self._runtime.locked() as core:
            jobs = self._schedule.take(core.run)
            if updated:
                self._schedule.updated(core.run)
        for job in jobs:
            if self._writer.busy and not job.requested:
                self._report_skip(job)
            else:
                self._writer.save(job)

    def _report_skip(self, job: SaveJob) -> None:
        with self._runtime.locked() as core:
            text = f"of outer step {job.checkpoint.version}: the one before is still being written"
            core.run.events.add("warning", "checkpoint_skipped", text)

    def _end(self, final: RunState) -> RunState:
        with self._runtime.locked() as core:
            jobs = self._schedule.last(core.run)
        for job in jobs:
            self._writer.save(job)
        for job in jobs:
            try:
                job.done.result(_LAST_SAVE_S)
            except (OSError, TimeoutError) as error:
                if not self._gives_up():  # else it ends because of that, and an earlier one is on the disk
                    raise CheckpointError(f"the last checkpoint could not be written: {error!r}") from error
        with self._runtime.locked() as core:
            core.end(final)
        return final

    def _gives_up(self) -> bool:
        with self._runtime.locked() as core:
            return core.run.checkpoint_health.given_up(core.run.clock())

    def _describe(
        self, outcome: Outcome, batch: Batch, elapsed_s: float, wait_s: float, apply_s: float
    ) -> UpdateRecord:
        used = [item for item in batch if item is not None]
        version = outcome.published.version
        estimates = [estimate for item in used for estimate in item.estimates]
        staleness = [version - 1 - estimate.theta_version for estimate in estimates]
        return UpdateRecord(
            outer_step=version,
            unix_time_s=self._wall_clock(),
            elapsed_s=elapsed_s,
            loss=float("nan") if outcome.loss is None else outcome.loss,
            grad_norm=outcome.grad_norm,
            update_norm=outcome.update_norm,
            staleness_mean=sum(staleness) / len(staleness),
            staleness_max=max(staleness),
            contributions=len(estimates),
            weight=sum(item.weight for item in used),
            inner_steps=sum(item.inner_steps for item in used),
            wait_s=wait_s,
            apply_s=apply_s,
        )
