"""Putting a checkpoint on the disk, and clearing away the lane states that no checkpoint needs any longer."""

from learner.checkpoint import Checkpoint
from learner.checkpoint_store import CheckpointFile, CheckpointStore
from learner.checkpointing import SaveJob
from learner.runtime import Runtime
from learner.snapshots import SnapshotStore
from protos.exit_codes import FencedError


class Saver:
    """Does save jobs, one after another, for the thread that writes."""

    def __init__(self, runtime: Runtime, checkpoints: CheckpointStore, snapshots: SnapshotStore) -> None:
        self._runtime = runtime
        self._checkpoints = checkpoints
        self._snapshots = snapshots

    def save(self, job: SaveJob) -> None:
        """Do a job. A disk that refuses is a problem to be seen, not the end of the run.

        Raises:
            FencedError: the run directory is another learner's now.
        """
        checkpoint = job.checkpoint
        try:
            self._snapshots.make_durable(checkpoint.snapshots())
            path = self._checkpoints.save(checkpoint)
            self._prune_snapshots(checkpoint)
        except (OSError, FencedError) as error:
            self._note_failure(str(error))
            job.done.set_exception(error)
            if isinstance(error, FencedError):
                raise
            return
        file = CheckpointFile(path, checkpoint.version, checkpoint.theta_sha256)
        with self._runtime.locked() as core:
            core.run.checkpoint = (file, core.run.clock())
            core.run.checkpoint_health.succeeded()
            core.run.problems.pop("checkpoint", None)
            core.run.events.add("info", "checkpoint", f"{path.name}, theta {checkpoint.theta_sha256}")
        job.done.set_result(file)

    def _note_failure(self, error: str) -> None:
        with self._runtime.locked() as core:
            problem = f"could not be written: {error}"
            if core.run.problems.get("checkpoint") != problem:  # it is tried again every few seconds
                core.run.events.add("error", "checkpoint_failed", error)
            core.run.problems["checkpoint"] = problem
            core.run.checkpoint_health.failed(core.run.clock())

    def _prune_snapshots(self, checkpoint: Checkpoint) -> None:
        """Delete the lane states that are older than this checkpoint's and part of no other.

        Newer ones stay, superseded or not: the next checkpoint may be under way already, and needs those that
        are not ahead of it.
        """
        oldest = {ref.lane: ref.seq for ref in checkpoint.snapshots()}
        referenced = self._checkpoints.referenced_snapshots()
        doomed = [
            (lane, seq)
            for lane, seq in self._snapshots.stored()
            if seq < oldest.get(lane, 0) and (lane, seq) not in referenced
        ]
        with self._runtime.locked() as core:
            for lane, seq in doomed:
                core.run.lanes[lane].snapshots.pop(seq, None)
        for lane, seq in doomed:
            self._snapshots.remove(lane, seq)
