"""Restoring a run from its newest checkpoint, or starting it at outer step 0."""

from collections.abc import Callable

from learner.errors import ConfigChangedError
from learner.settings import LearnerSettings
from learner.state.counters import Counters
from learner.state.lanes import LaneTable
from learner.state.run import Run, Telemetry
from learner.storage.checkpoint import LaneMark
from learner.storage.checkpoint_store import CheckpointFile, CheckpointStore
from learner.storage.events import EventLog
from learner.storage.files import remove_partial
from learner.storage.snapshots import SnapshotStore
from learner.storage.thetas import ThetaHistory
from learner.training.outer import OuterLearner


def restore(
    settings: LearnerSettings,
    term: int,
    outer: OuterLearner,
    checkpoints: CheckpointStore,
    snapshots: SnapshotStore,
    events: EventLog,
    clock: Callable[[], float],
) -> Run:
    """Return the run of the newest checkpoint, or a new run if there is none; restore `outer` likewise.

    Progress after the checkpoint is discarded: lanes are free at their watermarks, the buffer is empty, and
    lane states that no checkpoint refers to are deleted.

    Raises:
        CheckpointError: checkpoints exist, but this configuration cannot resume from them.
    """
    # Remove unfinished files first, so that a fenced learner cannot complete one after the choice below.
    remove_partial(checkpoints.directory)
    remove_partial(snapshots.directory)
    checkpoint = checkpoints.load_newest(
        like={"theta": outer.theta_shape, "learner_state": outer.state_shape()},
        config_sha256=settings.config_sha256,
        verify_snapshot=snapshots.verify,
        report=lambda text: events.add("error", "checkpoint_passed_over", text),
    )
    known = checkpoints.referenced_snapshots()
    for lane, seq in [stored for stored in snapshots.stored() if stored not in known]:
        snapshots.remove(lane, seq)
    lanes = LaneTable(settings.experiment.lanes, term)
    if checkpoint is None:
        thetas, counters = ThetaHistory([outer.initialise()]), Counters(clock())
    else:
        thetas = ThetaHistory(checkpoint.thetas)
        counters = Counters(clock(), checkpoint.inner_steps, checkpoint.elapsed_s)
        outer.restore(checkpoint.learner_state, thetas.newest)
        _place(lanes, checkpoint.lanes)
    run = Run(
        settings=settings,
        schema=outer.schema,
        term=term,
        lanes=lanes,
        thetas=thetas,
        theta=outer.theta(),
        learner_state=outer.state,
        telemetry=Telemetry.of(events, counters, clock),
        clock=clock,
    )
    if checkpoint is not None:
        run.control.moved_at = checkpoint.moved_at
        path = checkpoints.path(checkpoint.outer_step)
        run.checkpoint = (CheckpointFile(path, checkpoint.outer_step, checkpoint.theta_sha256), clock())
    return run


def _place(lanes: LaneTable, marks: tuple[LaneMark, ...]) -> None:
    """Set each lane to its progress in the checkpoint."""
    if len(marks) != len(lanes):
        raise ConfigChangedError(
            f"the checkpoint has {len(marks)} lanes, the configuration {len(lanes)}; "
            "restore the old number, or start a new run directory"
        )
    for lane, mark in zip(lanes, marks, strict=True):
        lane.accepted = lane.applied = mark.watermark
        lane.fencing_token = max(lane.fencing_token, mark.fencing_token)
        if mark.snapshot is not None:
            lane.snapshots[mark.snapshot.seq] = mark.snapshot
