"""Where a learner begins: at its newest checkpoint, or at the beginning."""

from collections.abc import Callable

from learner.checkpoint import Checkpoint, LaneMark
from learner.checkpoint_store import CheckpointFile, CheckpointStore
from learner.errors import ConfigChangedError
from learner.events import EventLog
from learner.lanes import LaneTable
from learner.outer import OuterLearner
from learner.ring import ThetaRing
from learner.run import Run
from learner.settings import LearnerSettings
from learner.snapshots import SnapshotStore
from learner.tally import Tally


def restore(
    settings: LearnerSettings,
    epoch: int,
    outer: OuterLearner,
    checkpoints: CheckpointStore,
    snapshots: SnapshotStore,
    events: EventLog,
    clock: Callable[[], float],
) -> Run:
    """Return the run as the newest checkpoint has it, or as it is before the first outer step.

    `outer` is put there too.

    What came after the checkpoint is undone: lanes are free at their watermarks, nothing is buffered, and
    lane states that no checkpoint knows are deleted.

    Raises:
        CheckpointError: there are checkpoints, and this configuration cannot go on from any.
    """
    # First: what an outdated learner could still finish must not appear after the newest has been chosen.
    checkpoints.remove_partial()
    snapshots.remove_partial()
    checkpoint = _newest(settings, outer, checkpoints, snapshots, events)
    _remove_undone(checkpoints, snapshots)
    lanes = LaneTable(settings.experiment.lanes, epoch)
    if checkpoint is None:
        ring, tally = ThetaRing([outer.initialise()]), Tally(clock())
    else:
        ring = ThetaRing(list(checkpoint.ring))
        tally = Tally(clock(), checkpoint.inner_steps, checkpoint.elapsed_s)
        outer.restore(checkpoint.learner_state, ring.newest)
        _place(lanes, checkpoint.lanes)
    run = Run(
        settings=settings,
        epoch=epoch,
        lanes=lanes,
        ring=ring,
        events=events,
        tally=tally,
        clock=clock,
        workers_desired=settings.workers.count,
        workers_range=settings.workers.scale.bounds,
    )
    if checkpoint is not None:
        run.phase.moved_at = checkpoint.moved_at
        path = checkpoints.path(checkpoint.version)
        run.checkpoint = (CheckpointFile(path, checkpoint.version, checkpoint.theta_sha256), clock())
    return run


def _newest(
    settings: LearnerSettings,
    outer: OuterLearner,
    checkpoints: CheckpointStore,
    snapshots: SnapshotStore,
    events: EventLog,
) -> Checkpoint | None:
    def check_snapshots(checkpoint: Checkpoint) -> None:
        for ref in checkpoint.snapshots():
            snapshots.verify(ref)

    return checkpoints.load_newest(
        like={"theta": outer.theta_shape, "learner_state": outer.state_shape()},
        config_sha256=settings.config_sha256,
        check_snapshots=check_snapshots,
        report=lambda text: events.add("error", "checkpoint_passed_over", text),
    )


def _remove_undone(checkpoints: CheckpointStore, snapshots: SnapshotStore) -> None:
    known = checkpoints.referenced_snapshots()
    for lane, seq in list(snapshots.stored()):
        if (lane, seq) not in known:
            snapshots.remove(lane, seq)


def _place(lanes: LaneTable, marks: tuple[LaneMark, ...]) -> None:
    """Put each lane where the checkpoint has it."""
    if len(marks) != len(lanes):
        raise ConfigChangedError(
            f"the checkpoint has {len(marks)} lanes, the configuration {len(lanes)}; "
            "restore the old number, or begin a new run directory"
        )
    for lane, mark in zip(lanes, marks, strict=True):
        lane.accepted = lane.applied = mark.watermark
        lane.incarnation = max(lane.incarnation, mark.incarnation)
        if mark.snapshot is not None:
            lane.snapshots[mark.snapshot.seq] = mark.snapshot
