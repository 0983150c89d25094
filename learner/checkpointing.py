"""When checkpoints are made, and of what: theta at a version, and lane states that may be on their way."""

import dataclasses
from concurrent.futures import Future
from typing import Final

from learner.checkpoint import Checkpoint, LaneMark
from learner.checkpoint_store import CheckpointFile
from learner.outer import OuterLearner
from learner.ring import Published
from learner.run import Run
from unspool.types import PyTree

_NO_SNAPSHOT: Final = 0


@dataclasses.dataclass(frozen=True)
class Capture:
    """What of a checkpoint is decided at its version. All of it is immutable, so taking it costs nothing.

    Attributes:
        theta: as a tree.
        learner_state: of the outer optimizer.
        ring: published thetas, back to the oldest that a replay could need then.
        marks: `(watermark, incarnation)` of each lane.
        inner_steps: computed so far.
        elapsed_s: the run's time so far.
        moved_at: version of the last update that moved theta.
    """

    theta: PyTree
    learner_state: PyTree
    ring: tuple[Published, ...]
    marks: tuple[tuple[int, int], ...]
    inner_steps: int
    elapsed_s: float
    moved_at: int

    @classmethod
    def of(cls, run: Run, outer: OuterLearner) -> "Capture":
        """Capture a run between two updates."""
        return cls(
            theta=outer.theta(),
            learner_state=outer.state,
            ring=run.ring.versions(),
            marks=tuple((lane.applied, lane.incarnation) for lane in run.lanes),
            inner_steps=run.tally.inner_steps,
            elapsed_s=run.tally.elapsed_s(run.clock()),
            moved_at=run.phase.moved_at,
        )

    @property
    def version(self) -> int:
        """Outer updates behind theta."""
        return self.ring[-1].version

    def ripe(self, run: Run) -> bool:
        """Whether it would not get better by waiting.

        A worker sends its lane's snapshot just after the push that completes a version, and before its next
        push. So the snapshots of a checkpoint's own version are there soon, and certainly once the next is.
        """
        if not run.aggregation.exact_versions or run.version > self.version:
            return True
        return all(
            watermark in lane.snapshots for lane, (watermark, _) in zip(run.lanes, self.marks, strict=True)
        )

    def checkpoint(self, run: Run) -> Checkpoint:
        """Complete it with the newest lane states that are not ahead of it."""
        marks = tuple(
            LaneMark(lane.number, watermark, incarnation, lane.newest_snapshot(watermark))
            for lane, (watermark, incarnation) in zip(run.lanes, self.marks, strict=True)
        )
        oldest = min(mark.snapshot.seq if mark.snapshot else _NO_SNAPSHOT for mark in marks)
        exact = run.aggregation.exact_versions
        kept = (
            [published for published in self.ring if published.version >= oldest] if exact else self.ring[-1:]
        )
        return Checkpoint(
            run_id=run.settings.run_id,
            epoch=run.epoch,
            config_sha256=run.settings.config_sha256,
            seed=run.settings.experiment.seed,
            theta=self.theta,
            learner_state=self.learner_state,
            ring=tuple(kept),
            lanes=marks,
            inner_steps=self.inner_steps,
            elapsed_s=self.elapsed_s,
            moved_at=self.moved_at,
        )


@dataclasses.dataclass(frozen=True)
class SaveJob:
    """A checkpoint to be written.

    Attributes:
        checkpoint: itself.
        done: where to say that it is durable, or why it is not.
        requested: whether somebody waits for it, so that it must not be left out.
    """

    checkpoint: Checkpoint
    done: Future[CheckpointFile]
    requested: bool


class CheckpointSchedule:
    """Decides when a checkpoint is made. Used under the core's lock."""

    def __init__(self, outer: OuterLearner, every: int) -> None:
        self._outer = outer
        self._every = every
        self._capture: Capture | None = None
        self._requests: list[Future[CheckpointFile]] = []

    def request(self) -> Future[CheckpointFile]:
        """Ask for a checkpoint of whatever version theta is at."""
        self._requests.append(Future())
        return self._requests[-1]

    def due(self, run: Run) -> bool:
        """Whether `take` would return anything."""
        return (
            bool(self._requests)
            or (self._capture is not None and self._capture.ripe(run))
            or run.checkpoint_health.retry_due(run.clock())
        )

    def take(self, run: Run) -> list[SaveJob]:
        """Return the checkpoints that can be written now."""
        jobs = []
        # In order of versions: a checkpoint may clear away the lane states that only earlier ones need.
        if self._capture is not None and self._capture.ripe(run):
            jobs.append(SaveJob(self._capture.checkpoint(run), Future(), requested=False))
            self._capture = None
        jobs += [SaveJob(self._now(run), request, requested=True) for request in self._requests]
        self._requests = []
        if run.checkpoint_health.retry_due(run.clock()):
            run.checkpoint_health.retrying()
            jobs = jobs or [SaveJob(self._now(run), Future(), requested=False)]
        return jobs

    def updated(self, run: Run) -> None:
        """Begin a checkpoint if this version is one that gets one."""
        if run.version % self._every == 0:
            self._capture = Capture.of(run, self._outer)

    def last(self, run: Run) -> list[SaveJob]:
        """Return what must be written before the learner ends: its last version, unless that is on disk."""
        saved = run.checkpoint is not None and run.checkpoint[0].outer_step == run.version
        if saved and not self._requests:
            return []
        return [SaveJob(self._now(run), request, requested=True) for request in self._requests or [Future()]]

    def _now(self, run: Run) -> Checkpoint:
        return Capture.of(run, self._outer).checkpoint(run)
