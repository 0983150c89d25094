"""What can keep a learner from serving, each with the exit code of its process."""

from typing import ClassVar


class LearnerError(Exception):
    """The learner cannot go on; the message says why and what to do."""

    exit_code: ClassVar[int] = 70


class RunLockedError(LearnerError):
    """Another learner holds the run directory."""

    exit_code = 73


class FencedError(LearnerError):
    """A later life of the learner has begun on the run directory: nothing of this one counts any more."""

    exit_code = 76


class PortInUseError(LearnerError):
    """A port that the configuration names is taken."""

    exit_code = 71


class TlsFilesError(LearnerError):
    """Callers would not accept the certificate that the configuration names."""

    exit_code = 2


class BrokenRunError(LearnerError):
    """This life of a learner cannot go on; the next, which begins at a checkpoint, can."""


class CheckpointError(LearnerError):
    """A checkpoint cannot be resumed from."""

    exit_code = 74


class CorruptCheckpointError(CheckpointError):
    """A checkpoint file is not what was written."""


class NoValidCheckpointError(CheckpointError):
    """There are checkpoints, and none of them verifies."""


class ConfigChangedError(CheckpointError):
    """A checkpoint was made by a configuration that trains something else."""


class CorruptSnapshotError(CheckpointError):
    """A lane's snapshot is not what its worker sent."""
