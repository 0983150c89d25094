"""Exit codes of the program's processes, and the errors that lead to them.

Each class of the error tree has the exit code of the process that it ends.
"""

import enum
from typing import ClassVar


class ExitCode(enum.IntEnum):
    """The exit codes with their descriptions; the numbers follow sysexits.h where it defines one."""

    meaning: str

    def __new__(cls, number: int, meaning: str = "") -> "ExitCode":
        """Return the member for `number`, with its description."""
        member = int.__new__(cls, number)
        member._value_ = number
        member.meaning = meaning
        return member

    OK = 0, "done; for launch, the run finished or was stopped, with a checkpoint"
    USAGE = 2, "the command line or the configuration cannot be used"
    RUN_FAILED = 65, "the run failed: theta would not have stayed finite, or could not be saved"
    NOT_FOUND = 66, "no such run or file"
    UNTRAINED = 67, "the run has finished, and no update has changed theta"
    UNREACHABLE = 69, "the run's learner, or the Ray cluster of --address, does not answer"
    FAILED = 70, "an internal error, a crash, or workers that all crash"
    PORT_IN_USE = 71, "a port is in use"
    SYSTEM = 72, "a file, a folder or the disk cannot be used; the message names it"
    RUN_IN_USE = 73, "another learner holds this run directory"
    CHECKPOINT = 74, "no checkpoint of the run can be used"
    TEMPORARY = 75, "the process ended early: launch the run, or start the worker, again"
    FENCED = 76, "another learner has taken the run over"
    REFUSED = 77, "the learner refused the caller, or its certificate was refused"
    UNFIT = 78, "doctor found a problem"
    EVICTED = 79, "the learner gave this worker's lanes to others; start it again"
    INTERRUPTED = 130, "interrupted with Ctrl-C"


def exit_code_table() -> str:
    """Return a table of all exit codes with their descriptions, for help texts."""
    return "\n".join(f"  {code.value:>3}  {code.meaning}" for code in ExitCode)


class UnspoolError(Exception):
    """Base of the errors that end a process with a message and an exit code, without a traceback."""

    exit_code: ClassVar[ExitCode] = ExitCode.FAILED


class UsageError(UnspoolError):
    """Raised if the command line or the configuration is invalid."""

    exit_code = ExitCode.USAGE


class RunFailedError(UnspoolError):
    """Raised if theta could not be updated any further."""

    exit_code = ExitCode.RUN_FAILED


class UntrainedError(UnspoolError):
    """Raised if the run reached its last outer step, but no update has ever moved theta."""

    exit_code = ExitCode.UNTRAINED


class RunNotFoundError(UnspoolError):
    """Raised if the run or file does not exist."""

    exit_code = ExitCode.NOT_FOUND


class LearnerUnreachableError(UnspoolError):
    """Raised if the run's learner, or the Ray cluster for its workers, does not answer."""

    exit_code = ExitCode.UNREACHABLE


class FailedError(UnspoolError):
    """Raised for internal errors, or if all workers fail."""

    exit_code = ExitCode.FAILED


class PortInUseError(UnspoolError):
    """Raised if another process listens on a port of the configuration."""

    exit_code = ExitCode.PORT_IN_USE


class SystemRefusalError(UnspoolError):
    """Raised if an operation of the operating system failed; the message contains the path."""

    exit_code = ExitCode.SYSTEM


class RunInUseError(UnspoolError):
    """Raised if another learner holds the run directory."""

    exit_code = ExitCode.RUN_IN_USE


class CheckpointError(UnspoolError):
    """Raised if no checkpoint of the run can be used."""

    exit_code = ExitCode.CHECKPOINT


class InterruptedRunError(UnspoolError):
    """Raised if the run ended early and can be launched again."""

    exit_code = ExitCode.TEMPORARY


class FencedError(UnspoolError):
    """Raised if another learner has taken the run over, so that this one must not write anymore."""

    exit_code = ExitCode.FENCED


class RefusedError(UnspoolError):
    """Raised if the learner permanently denies this caller or request, or if a certificate is rejected."""

    exit_code = ExitCode.REFUSED


def error_for(exit_code: int, message: str) -> UnspoolError:
    """Return the error with the `exit_code` of another process of the run, to end this process likewise."""
    for error_type in UnspoolError.__subclasses__():
        if error_type.exit_code == exit_code:
            return error_type(message)
    return FailedError(message)
