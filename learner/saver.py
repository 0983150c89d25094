"""Putting a checkpoint on the disk, and clearing away the lane states that no checkpoint needs any longer."""

from learner.checkpoint_store import CheckpointFile, CheckpointStore
from learner.checkpointing import SaveJob
from learner.runtime import Runtime
from learner.snapshots import SnapshotRef, SnapshotStore


class Saver:
    """Does save jobs, one after another, for the thread that writes."""

    def __init__(self, runtime: Runtime, checkpoints: CheckpointStore, snapshots: SnapshotStore) -> None:
        self._runtime = runtime
        self._checkpoints = checkpoints
        self._snapshots = snapshots

    def save(self, job: SaveJob) -> None:
        """Do a job. A disk that refuses is a problem to be seen, not the end of the run."""
        checkpoint = job.checkpoint
        try:
            self._snapshots.make_durable(checkpoint.snapshots())
            path = self._checkpoints.save(checkpoint)
            self._prune_snapshots()
        except OSError as error:
            self._note_failure(str(error))
            job.done.set_exception(error)
            return
        file = CheckpointFile(path, checkpoint.version, checkpoint.theta_sha256)
        with self._runtime.locked() as core:
            core.run.checkpoint = (file, core.run.clock())
            core.run.problems.pop("checkpoint", None)
            core.run.events.add("info", "checkpoint", f"{path.name}, theta {checkpoint.theta_sha256}")
        job.done.set_result(file)

    def _note_failure(self, error: str) -> None:
        with self._runtime.locked() as core:
            core.run.problems["checkpoint"] = f"could not be written: {error}"
            core.run.events.add("error", "checkpoint_failed", error)

    def _prune_snapshots(self) -> None:
        """Delete the lane states that are older than the newest of their lane and part of no checkpoint."""
        referenced = self._checkpoints.referenced_snapshots()
        with self._runtime.locked() as core:
            newest = {lane.number: lane.newest_snapshot(lane.reached) for lane in core.run.lanes}
        stored = self._snapshots.stored()
        doomed = [(lane, seq) for lane, seq in stored if _is_behind(newest.get(lane), seq)]
        doomed = [key for key in doomed if key not in referenced]
        with self._runtime.locked() as core:
            for lane, seq in doomed:
                core.run.lanes[lane].snapshots.pop(seq, None)
        for lane, seq in doomed:
            self._snapshots.remove(lane, seq)


def _is_behind(newest: SnapshotRef | None, seq: int) -> bool:
    return newest is not None and seq < newest.seq
