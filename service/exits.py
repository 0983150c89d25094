"""How `unspool` ends: its exit codes, and the errors that lead to them.

```
ServiceError
├── UsageError               2  the command line or the configuration cannot be used
├── RunFailedError          65  theta could not be moved on
├── RunNotFoundError        66  no such run or file
├── UntrainedError          67  the run is at its end and theta has never moved
├── LearnerUnreachableError 69  the run's learner, or its Ray cluster, does not answer
├── FailedError             70  this program failed, or all of the workers
├── PortInUseError          71  another process listens there
├── SystemRefusalError      72  the operating system refused a file, a folder or something else
├── RunInUseError           73  another learner has this run directory
├── CheckpointError         74  no checkpoint of the run can be resumed from
├── InterruptedRunError     75  the run ended early; launch it again
├── FencedError             76  another learner has taken the run over
└── RefusedError            77  the learner does not let this caller in, or TLS does not
```
"""

import enum
from typing import ClassVar


class ExitCode(enum.IntEnum):
    """What the program's exit status means; numbers as in sysexits.h where it has one."""

    OK = 0
    USAGE = 2
    RUN_FAILED = 65
    NOT_FOUND = 66
    UNTRAINED = 67
    UNREACHABLE = 69
    FAILED = 70
    PORT_IN_USE = 71
    SYSTEM = 72
    RUN_IN_USE = 73
    CHECKPOINT = 74
    TEMPORARY = 75
    FENCED = 76
    REFUSED = 77
    UNFIT = 78

    @property
    def meaning(self) -> str:
        """What to tell a person."""
        return _MEANINGS[self]


_MEANINGS = {
    ExitCode.OK: "done; for launch, the run finished or was stopped, with a checkpoint",
    ExitCode.USAGE: "the command line or the configuration cannot be used",
    ExitCode.RUN_FAILED: "the run failed: theta would not have stayed finite, or could not be saved",
    ExitCode.NOT_FOUND: "no such run or file",
    ExitCode.UNTRAINED: "the run is at its end, and no update ever moved theta",
    ExitCode.UNREACHABLE: "the run's learner, or the Ray cluster of --address, does not answer",
    ExitCode.FAILED: "an internal error, or workers that only crash",
    ExitCode.PORT_IN_USE: "a port is in use",
    ExitCode.SYSTEM: "a file, a folder or the disk cannot be used; the message names it",
    ExitCode.RUN_IN_USE: "another learner has this run directory",
    ExitCode.CHECKPOINT: "no checkpoint of the run can be used",
    ExitCode.TEMPORARY: "the run ended early; launch it again to resume",
    ExitCode.FENCED: "another learner has taken the run over",
    ExitCode.REFUSED: "the learner refused the caller, or its certificate was refused",
    ExitCode.UNFIT: "doctor found something that will not work",
}


def exit_code_table() -> str:
    """Return all exit codes with their meanings, for help texts."""
    return "\n".join(f"  {code.value:>2}  {code.meaning}" for code in ExitCode)


class ServiceError(Exception):
    """An error to be told in one message, without a traceback. Every subclass has its own exit code."""

    exit_code: ClassVar[ExitCode] = ExitCode.FAILED


class UsageError(ServiceError):
    """The command line cannot be used."""

    exit_code = ExitCode.USAGE


class RunFailedError(ServiceError):
    """Theta could not be moved on."""

    exit_code = ExitCode.RUN_FAILED


class UntrainedError(ServiceError):
    """The run is at its last outer step, and no update has ever moved theta."""

    exit_code = ExitCode.UNTRAINED


class RunNotFoundError(ServiceError):
    """There is no such run or file."""

    exit_code = ExitCode.NOT_FOUND


class LearnerUnreachableError(ServiceError):
    """The run's learner, or the Ray cluster for its workers, does not answer."""

    exit_code = ExitCode.UNREACHABLE


class FailedError(ServiceError):
    """This program failed, or all of the workers."""

    exit_code = ExitCode.FAILED


class PortInUseError(ServiceError):
    """Another process listens on a port of the configuration."""

    exit_code = ExitCode.PORT_IN_USE


class SystemRefusalError(ServiceError):
    """The operating system refused something; the message names the path."""

    exit_code = ExitCode.SYSTEM


class RunInUseError(ServiceError):
    """Another learner has this run directory."""

    exit_code = ExitCode.RUN_IN_USE


class CheckpointError(ServiceError):
    """No checkpoint of the run can be used."""

    exit_code = ExitCode.CHECKPOINT


class InterruptedRunError(ServiceError):
    """The run ended early and can be launched again."""

    exit_code = ExitCode.TEMPORARY


class FencedError(ServiceError):
    """Another learner has taken the run over."""

    exit_code = ExitCode.FENCED


class RefusedError(ServiceError):
    """The learner does not let this caller in, or one end does not accept the other's certificate."""

    exit_code = ExitCode.REFUSED


def error_for(exit_code: int, message: str) -> ServiceError:
    """Return the error that ends this program with the `exit_code` of another one of the run."""
    for error_type in ServiceError.__subclasses__():
        if error_type.exit_code == exit_code:
            return error_type(message)
    return FailedError(message)
