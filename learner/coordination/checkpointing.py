"""The schedule and content of checkpoints: theta at an outer step, and lane states that may arrive later."""

import dataclasses
from concurrent.futures import Future
from typing import Final

from learner.state.run import Run
from learner.storage.checkpoint import Checkpoint, LaneMark
from learner.storage.checkpoint_store import CheckpointFile
from learner.storage.thetas import Published
from unspool.types import PyTree

_NO_SNAPSHOT: Final = 0


@dataclasses.dataclass(frozen=True)
class Capture:
    """The part of a checkpoint that is fixed at its outer step; immutable, so capturing it costs nothing.

    Attributes:
        theta: the current theta, as a tree.
        learner_state: the outer optimizer's state.
        thetas: the published thetas, back to the oldest that a replay could need.
        marks: `(watermark, fencing_token)` of each lane.
        inner_steps: the number of inner steps computed so far.
        elapsed_s: the run's elapsed time in seconds.
        moved_at: the outer step of the last update that moved theta.
    """

    theta: PyTree
    learner_state: PyTree
    thetas: tuple[Published, ...]
    marks: tuple[tuple[int, int], ...]
    inner_steps: int
    elapsed_s: float
    moved_at: int

    @classmethod
    def of(cls, run: Run) -> "Capture":
        """Capture a run between two updates."""
        return cls(
            theta=run.theta,
            learner_state=run.learner_state,
            thetas=run.thetas.kept(),
            marks=tuple((lane.applied, lane.fencing_token) for lane in run.lanes),
            inner_steps=run.telemetry.counters.inner_steps,
            elapsed_s=run.telemetry.counters.elapsed_s(run.clock()),
            moved_at=run.control.moved_at,
        )

    def ripe(self, run: Run) -> bool:
        """Return whether the checkpoint can be written because waiting would not complete it further.

        A worker sends its lane's snapshot right after the push that completes an outer step and before its
        next push. So all snapshots of the checkpoint's step arrive soon, at the latest with the next step.
        """
        if not run.aggregation.exact_steps or run.outer_step > self.thetas[-1].outer_step:
            return True
        return all(
            watermark in lane.snapshots for lane, (watermark, _) in zip(run.lanes, self.marks, strict=True)
        )

    def checkpoint(self, run: Run) -> Checkpoint:
        """Return the checkpoint, completed with each lane's newest state at or before its watermark."""
        marks = tuple(
            LaneMark(lane.number, watermark, fencing_token, lane.newest_snapshot(watermark))
            for lane, (watermark, fencing_token) in zip(run.lanes, self.marks, strict=True)
        )
        oldest = min(mark.snapshot.seq if mark.snapshot else _NO_SNAPSHOT for mark in marks)
        kept = [published for published in self.thetas if published.outer_step >= oldest]
        return Checkpoint(
            run_id=run.settings.run_id,
            term=run.term,
            config_sha256=run.settings.config_sha256,
            seed=run.settings.experiment.seed,
            theta=self.theta,
            learner_state=self.learner_state,
            thetas=tuple(kept) if run.aggregation.exact_steps else self.thetas[-1:],
            lanes=marks,
            inner_steps=self.inner_steps,
            elapsed_s=self.elapsed_s,
            moved_at=self.moved_at,
        )


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


class CheckpointSchedule:
    """Decides when to make a checkpoint. Used under the core's lock."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._seen_step = run.outer_step
        self._capture: Capture | None = None
        self._requests: list[Future[CheckpointFile]] = []

    def request(self) -> Future[CheckpointFile]:
        """Request a checkpoint of the current outer step."""
        self._requests.append(Future())
        return self._requests[-1]

    def due(self) -> bool:
        """Return whether `take` would return a checkpoint."""
        return bool(self._requests) or self._is_ripe() or self._is_retry_due()

    def take(self) -> list[SaveJob]:
        """Return the checkpoints that can be written now; then start one if this outer step is scheduled."""
        run, jobs = self._run, []
        # Keep the order of outer steps: a checkpoint may delete lane states that only earlier ones need.
        if self._capture is not None and self._is_ripe():
            jobs.append(SaveJob(self._capture.checkpoint(run), Future(), requested=False))
            self._capture = None
        jobs += [SaveJob(self._now(), request, requested=True) for request in self._requests]
        self._requests = []
        if self._is_retry_due():
            run.checkpoint_health.retrying()
            jobs = jobs or [SaveJob(self._now(), Future(), requested=False)]
        if run.outer_step != self._seen_step and run.outer_step % run.settings.checkpoint.every == 0:
            self._capture = Capture.of(run)
        self._seen_step = run.outer_step
        return jobs

    def last(self) -> list[SaveJob]:
        """Return the checkpoints to write before the learner exits: the last outer step, unless on disk."""
        run = self._run
        saved = run.checkpoint is not None and run.checkpoint[0].outer_step == run.outer_step
        if saved and not self._requests:
            return []
        return [SaveJob(self._now(), request, requested=True) for request in self._requests or [Future()]]

    def _now(self) -> Checkpoint:
        return Capture.of(self._run).checkpoint(self._run)

    def _is_ripe(self) -> bool:
        return self._capture is not None and self._capture.ripe(self._run)

    def _is_retry_due(self) -> bool:
        return self._run.checkpoint_health.retry_due(self._run.clock())
