"""Checkpoints: when they are made, what they contain, and whether they reach the disk."""

import dataclasses
from collections.abc import Collection
from concurrent.futures import Future
from typing import Final

from learner.coordination.core_lock import CoreLock, LockedCommands, locked
from learner.state.run import Run
from learner.storage.checkpoint import Checkpoint, LaneMark
from learner.storage.checkpoint_store import CheckpointFile

_PROBLEM: Final = "checkpoint"


@dataclasses.dataclass(frozen=True)
class SaveJob:
    """A checkpoint to be written.

    Attributes:
        checkpoint: the content.
        done: completes when the checkpoint is durable, or with the error.
        requested: whether a caller waits for it; such a checkpoint is never skipped.
    """

    checkpoint: Checkpoint
    done: Future[CheckpointFile]
    requested: bool


class Checkpoints(LockedCommands):
    """The core's interface to the threads that make and write checkpoints.

    A scheduled checkpoint is captured at its outer step and completed when the lanes' snapshots have arrived.
    """

    def __init__(self, lock: CoreLock, run: Run) -> None:
        super().__init__(lock)
        self._run = run
        self._seen_step = run.outer_step
        self._capture: Checkpoint | None = None
        self._requests: list[Future[CheckpointFile]] = []

    @locked
    def request(self) -> Future[CheckpointFile]:
        """Request a checkpoint of the current outer step; the future completes when it is on disk."""
        self._requests.append(Future())
        return self._requests[-1]

    def due(self) -> bool:
        """Return whether `take` would return a checkpoint. Used under the core's lock."""
        return bool(self._requests) or self._is_ripe() or self._is_retry_due()

    @locked
    def take(self) -> list[SaveJob]:
        """Return the checkpoints that can be written now; then start one if this outer step is scheduled."""
        run, jobs = self._run, []
        # Keep the order of outer steps: a checkpoint may delete lane states that only earlier ones need.
        if self._capture is not None and self._is_ripe():
            jobs.append(SaveJob(_completed(self._capture, run), Future(), requested=False))
            self._capture = None
        jobs += [
            SaveJob(_completed(_captured(run), run), request, requested=True) for request in self._requests
        ]
        self._requests = []
        if self._is_retry_due():
            run.checkpoint_health.retrying()
            jobs = jobs or [SaveJob(_completed(_captured(run), run), Future(), requested=False)]
        if run.outer_step != self._seen_step and run.outer_step % run.settings.checkpoint.every == 0:
            self._capture = _captured(run)
        self._seen_step = run.outer_step
        return jobs

    @locked
    def last(self) -> list[SaveJob]:
        """Return the checkpoints to write before the learner exits: the last outer step, unless on disk."""
        run = self._run
        saved = run.checkpoint is not None and run.checkpoint[0].outer_step == run.outer_step
        requests = self._requests or ([] if saved else [Future()])
        return [SaveJob(_completed(_captured(run), run), request, requested=True) for request in requests]

    @locked
    def skipped(self, job: SaveJob) -> None:
        """Record that a checkpoint was skipped because the previous one is still being written."""
        text = f"of outer step {job.checkpoint.outer_step}: the previous one is still being written"
        self._run.report("warning", "checkpoint_skipped", text)

    @locked
    def saved(self, file: CheckpointFile) -> None:
        """Record a checkpoint that is on disk."""
        run = self._run
        run.checkpoint = (file, run.clock())
        run.checkpoint_health.succeeded()
        run.telemetry.problems.pop(_PROBLEM, None)
        run.report("info", "checkpoint", f"{file.path.name}, theta {file.theta_sha256}")

    @locked
    def failed(self, error: str) -> None:
        """Record a checkpoint that could not be written."""
        run = self._run
        problem = f"could not be written: {error}"
        if run.telemetry.problems.get(_PROBLEM) != problem:  # retries would repeat it every few seconds
            run.report("error", "checkpoint_failed", error)
        run.telemetry.problems[_PROBLEM] = problem
        run.checkpoint_health.failed(run.clock())

    @locked
    def given_up(self) -> bool:
        """Return whether the run ends because checkpoints have failed for too long."""
        return self._run.checkpoint_health.given_up(self._run.clock())

    @locked
    def forget_snapshots(self, snapshots: Collection[tuple[int, int]]) -> None:
        """Forget `(lane, seq)` of snapshots before their files are deleted."""
        for lane, seq in snapshots:
            self._run.lanes[lane].snapshots.pop(seq, None)

    def _is_ripe(self) -> bool:
        """Return whether a checkpoint was captured and waiting would not complete it further.

        A worker sends its lane's snapshot right after the push that completes an outer step and before its
        next push. So all snapshots of the checkpoint's step arrive soon, at the latest with the next step.
        """
        run, capture = self._run, self._capture
        if capture is None:
            return False
        if not run.aggregation.exact_steps or run.outer_step > capture.outer_step:
            return True
        return all(mark.watermark in run.lanes[mark.lane].snapshots for mark in capture.lanes)

    def _is_retry_due(self) -> bool:
        return self._run.checkpoint_health.retry_due(self._run.clock())


def _captured(run: Run) -> Checkpoint:
    """Return a run's checkpoint between two updates, without lane states. It copies no array."""
    return Checkpoint(
        run_id=run.settings.run_id,
        term=run.term,
        config_sha256=run.settings.config_sha256,
        seed=run.settings.experiment.seed,
        theta=run.theta,
        learner_state=run.learner_state,
        thetas=run.thetas.kept(),
        lanes=tuple(LaneMark(lane.number, lane.applied, lane.fencing_token, None) for lane in run.lanes),
        inner_steps=run.telemetry.counters.inner_steps,
        elapsed_s=run.telemetry.counters.elapsed_s(run.clock()),
        moved_at=run.control.moved_at,
    )


def _completed(capture: Checkpoint, run: Run) -> Checkpoint:
    """Return a checkpoint with each lane's newest state up to its watermark, and the thetas for replays."""
    marks = tuple(
        dataclasses.replace(mark, snapshot=run.lanes[mark.lane].newest_snapshot(mark.watermark))
        for mark in capture.lanes
    )
    oldest = min(mark.snapshot.seq if mark.snapshot else 0 for mark in marks)
    if not run.aggregation.exact_steps:
        oldest = capture.outer_step
    kept = tuple(published for published in capture.thetas if published.outer_step >= oldest)
    return dataclasses.replace(capture, lanes=marks, thetas=kept)
