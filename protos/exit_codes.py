"""How a process of this program ends: its exit codes, and the errors that lead to them.

Every class of the tree knows the exit code of the process that it ends:

```
UnspoolError
├── UsageError               2  the command line or the configuration cannot be used
├── RunFailedError          65  theta could not be updated any further
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
└── RefusedError            77  the learner refuses this caller or request, or TLS does
```
"""

import enum
from typing import ClassVar


class ExitCode(enum.IntEnum):
    """What an exit status means, with the text for people; numbers as in sysexits.h where it has one."""

    meaning: str

    def __new__(cls, number: int, meaning: str = "") -> "ExitCode":
        """Return the member for `number`, with its text."""
        member = int.__new__(cls, number)
        member._value_ = number
        member.meaning = meaning
        return member

    OK = 0, "done; for launch, the run finished or was stopped, with a checkpoint"
    USAGE = 2, "the command line or the configuration cannot be used"
    RUN_FAILED = 65, "the run failed: theta would not have stayed finite, or could not be saved"
    NOT_FOUND = 66, "no such run or file"
    UNTRAINED = 67, "the run is at its end, and no update ever moved theta"
    UNREACHABLE = 69, "the run's learner, or the Ray cluster of --address, does not answer"
    FAILED = 70, "an internal error, a crash, or workers that only crash"
    PORT_IN_USE = 71, "a port is in use"
    SYSTEM = 72, "a file, a folder or the disk cannot be used; the message names it"
    RUN_IN_USE = 73, "another learner has this run directory"
    CHECKPOINT = 74, "no checkpoint of the run can be used"
    TEMPORARY = 75, "it ended early: launch the run, or start the worker, again"
    FENCED = 76, "another learner has taken the run over"
    REFUSED = 77, "the learner refused the caller, or its certificate was refused"
    UNFIT = 78, "doctor found something that will not work"
    EVICTED = 79, "the learner gave this worker's lanes to others; start it again"
    INTERRUPTED = 130, "interrupted with Ctrl-C"


def exit_code_table() -> str:
    """Return all exit codes with their meanings, for help texts."""
    return "\n".join(f"  {code.value:>3}  {code.meaning}" for code in ExitCode)


class UnspoolError(Exception):
    """An error that ends a process with one message, without a traceback."""

    exit_code: ClassVar[ExitCode] = ExitCode.FAILED


class UsageError(UnspoolError):
    """The command line or the configuration cannot be used."""

    exit_code = ExitCode.USAGE


class RunFailedError(UnspoolError):
    """Theta could not be updated any further."""

    exit_code = ExitCode.RUN_FAILED


class UntrainedError(UnspoolError):
    """The run is at its last outer step, and no update has ever moved theta."""

    exit_code = ExitCode.UNTRAINED


class RunNotFoundError(UnspoolError):
    """There is no such run or file."""

    exit_code = ExitCode.NOT_FOUND


class LearnerUnreachableError(UnspoolError):
    """The run's learner, or the Ray cluster for its workers, does not answer."""

    exit_code = ExitCode.UNREACHABLE


class FailedError(UnspoolError):
    """This program failed, or all of the workers."""

    exit_code = ExitCode.FAILED


class PortInUseError(UnspoolError):
    """Another process listens on a port of the configuration."""

    exit_code = ExitCode.PORT_IN_USE


class SystemRefusalError(UnspoolError):
    """The operating system refused something; the message names the path."""

    exit_code = ExitCode.SYSTEM


class RunInUseError(UnspoolError):
    """Another learner has this run directory."""

    exit_code = ExitCode.RUN_IN_USE


class CheckpointError(UnspoolError):
    """No checkpoint of the run can be used."""

    exit_code = ExitCode.CHECKPOINT


class InterruptedRunError(UnspoolError):
    """The run ended early and can be launched again."""

    exit_code = ExitCode.TEMPORARY


class FencedError(UnspoolError):
    """Another learner has taken the run over: nothing that this one writes counts any more."""

    exit_code = ExitCode.FENCED


class RefusedError(UnspoolError):
    """The learner refuses this caller or request and would again, or one end refuses the certificate."""

    exit_code = ExitCode.REFUSED


def error_for(exit_code: int, message: str) -> UnspoolError:
    """Return the error that ends this process with the `exit_code` of another one of the run."""
    for error_type in UnspoolError.__subclasses__():
        if error_type.exit_code == exit_code:
            return error_type(message)
    return FailedError(message)
