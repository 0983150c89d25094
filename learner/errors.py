"""Errors of a learner's run and its checkpoints, in addition to those of `protos.exit_codes`."""

from protos.exit_codes import CheckpointError, FailedError


class BrokenRunError(FailedError):
    """Raised when this learner process cannot continue, but a new one can resume from a checkpoint."""


class CorruptCheckpointError(CheckpointError):
    """Raised for a checkpoint file that differs from what was written."""


class NoValidCheckpointError(CheckpointError):
    """Raised if there are checkpoints, but none is valid."""


class ConfigChangedError(CheckpointError):
    """Raised for a checkpoint of a configuration that trains a different theta."""


class CorruptSnapshotError(CheckpointError):
    """Raised for a lane snapshot that is missing or differs from what the worker sent."""
