"""The core's interface to the update thread: batches, thetas, and the end of the run."""

from typing import Final, NamedTuple

from learner.coordination.checkpointing import Checkpoints
from learner.coordination.core_lock import CoreLock, LockedCommands, locked
from learner.coordination.leases import Leases
from learner.coordination.pushes import Pushes
from learner.errors import BrokenRunError
from learner.state import messages
from learner.state.aggregation import Batch
from learner.state.run import Run
from learner.state.run_state import RunState
from learner.storage.events import Level
from learner.storage.update_record import Effect, Outcome, UpdateRecord
from protos.unspool.v1 import learner_pb2

_METRICS: Final = "metrics"


class Work(NamedTuple):
    """The update thread's next task, apart from checkpoints.

    Attributes:
        final: how the run ends now, or None while it continues.
        batch: the batch to apply, or None.
        outer_step: the outer step of the theta that the batch is applied to.
    """

    final: RunState | None
    batch: Batch | None
    outer_step: int


class Updates(LockedCommands):
    """Provides batches and publishes the resulting thetas."""

    def __init__(
        self, lock: CoreLock, run: Run, leases: Leases, pushes: Pushes, checkpoints: Checkpoints
    ) -> None:
        super().__init__(lock)
        self._run = run
        self._leases = leases
        self._pushes = pushes
        self._checkpoints = checkpoints
        self._idle_since_s = self._taken_s = run.clock()

    def wait(self) -> None:
        """Block the update thread until there is work."""
        self._lock.wait_for_work(self._has_work, self.batch_due_in_s)

    @locked
    def take(self) -> Work:
        """Return the next task; remove its batch from the buffer.

        Raises:
            BrokenRunError: this process cannot continue and must not save anything.
        """
        if self._run.broken:
            raise BrokenRunError(self._run.broken)
        final = self.ending()
        return Work(final, None if final else self.take_batch(), self._run.outer_step)

    def ending(self) -> RunState | None:
        """Return how the run ends now, or None while it continues. Used under the core's lock."""
        run = self._run
        if run.applying:
            return None
        if run.checkpoint_health.given_up(run.clock()):
            return RunState.FAILED
        return run.control.end(run.outer_step, computing=run.computing)

    def batch_due_in_s(self) -> float | None:
        """Return in how many seconds the next batch is due: 0 is now, None if more pushes must arrive first.

        Used under the core's lock.
        """
        run = self._run
        if run.control.paused or run.control.final is not None or run.applying:
            return None
        return run.aggregation.due_in_s(run.buffer, run.outer_step, run.clock())

    @locked
    def take_batch(self) -> Batch | None:
        """Remove the next update's batch from the buffer and return it, or None if none is due."""
        if self.batch_due_in_s() != 0.0:
            return None
        run = self._run
        batch = run.aggregation.select(run.buffer)
        run.buffer.take([item for item in batch if item is not None])
        run.applying = run.aggregation.weighed(batch, run.outer_step)
        self._taken_s = run.clock()
        return run.applying

    @locked
    def applied(self, outcome: Outcome) -> UpdateRecord:
        """Publish the theta that results from the last batch; return the update's record."""
        run = self._run
        used = [item for item in run.applying if item is not None]
        run.applying = ()
        staleness = [run.outer_step - item.outer_step for push in used for item in push.estimates]
        run.publish(outcome)
        for number, seq, _ in (estimate for push in used for estimate in push.estimates):
            lane = run.lanes[number]
            lane.applied = max(lane.applied, seq)
        if self.ending() is None:  # otherwise workers would start estimates that no update will use
            self._announce()
        for push in used:
            self._pushes.settle(push, learner_pb2.APPLIED)
        for push in run.buffer.drop(lambda waiting: run.aggregation.expired(waiting, run.outer_step)):
            self._pushes.settle(push, learner_pb2.STALE, f"not applied before outer step {run.outer_step}")
        self._report(outcome)
        run.trim_thetas()
        now_s = run.clock()
        record = UpdateRecord(
            outer_step=run.outer_step,
            unix_time_s=run.wall_clock(),
            elapsed_s=run.telemetry.counters.elapsed_s(now_s),
            loss=float("nan") if outcome.loss is None else outcome.loss,
            grad_norm=outcome.grad_norm,
            update_norm=outcome.update_norm,
            staleness_mean=sum(staleness) / len(staleness),
            staleness_max=max(staleness),
            contributions=len(staleness),
            weight=sum(push.weight for push in used),
            inner_steps=sum(push.inner_steps for push in used),
            wait_s=self._taken_s - self._idle_since_s,
            apply_s=now_s - self._taken_s,
            diverged_tasks=sum(push.diverged_tasks for push in used),
        )
        self._idle_since_s = now_s
        run.telemetry.counters.applied(record, staleness, now_s)
        return record

    @locked
    def end(self, final: RunState) -> None:
        """End the run, answer the pushes that no update will use, and send every worker the outcome."""
        run = self._run
        run.control.final = final
        for push in run.buffer.drop(lambda waiting: True):
            self._pushes.settle(push, learner_pb2.CLOSED, f"the run is {final}; no update has used it")
        for session in run.sessions:
            self._leases.send_outcome(session)
        level: Level = "error" if final in (RunState.FAILED, RunState.UNTRAINED) else "info"
        text = f"at outer step {run.outer_step}, theta {run.thetas.newest.sha256}"
        standstill = run.control.standstill(run.outer_step)
        run.report(level, final.lower(), f"{text}: theta {standstill}" if standstill else text)

    @locked
    def table_written(self, error: OSError | None) -> None:
        """Record whether rows of the metrics table could be written to disk."""
        if error is None:
            self._run.telemetry.problems.pop(_METRICS, None)
        else:
            self._run.telemetry.problems[_METRICS] = f"could not be written: {error}"

    def _has_work(self) -> bool:
        return (
            bool(self._run.broken)
            or self.ending() is not None
            or self.batch_due_in_s() == 0.0
            or self._checkpoints.due()
        )

    def _announce(self) -> None:
        announcement = messages.theta(self._run.thetas.newest, self._run.settings.chunk_bytes)
        for session in self._run.sessions:
            session.send(announcement)

    def _report(self, outcome: Outcome) -> None:
        step = f"outer step {self._run.outer_step}"
        if outcome.effect is Effect.EMPTY:
            text = f"{step}: no gradient had weight; theta is unchanged"
            self._run.report("warning", "empty_update", text)
        if outcome.effect is Effect.REVERTED:
            text = f"{step}: theta or the outer optimizer's state would not have stayed finite: skipped"
            self._run.report("error", "reverted_update", text)
