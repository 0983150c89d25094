"""What can go wrong with a learner's run and its checkpoints, beside the errors of `protos.exit_codes`."""

from protos.exit_codes import CheckpointError, FailedError


class BrokenRunError(FailedError):
    """This learner process cannot continue; the next one, which starts at a checkpoint, can."""


class CorruptCheckpointError(CheckpointError):
    """A checkpoint file is not what was written."""


class NoValidCheckpointError(CheckpointError):
    """There are checkpoints, and none of them verifies."""


class ConfigChangedError(CheckpointError):
    """A checkpoint was made by a configuration that trains something else."""


class CorruptSnapshotError(CheckpointError):
    """A lane's snapshot is not what its worker sent."""
