"""Worker processes as a supervisor sees them: started, watched and killed by name, wherever they run."""

import abc
import signal
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from protos.exit_codes import ExitCode


@dataclass(frozen=True)
class Exit:
    """How a worker process ended.

    Attributes:
        code: its exit code (`protos.exit_codes.ExitCode`), or None if it did not get to choose one.
        cause: for people.
        preempted: whether the machine was taken away, which is nobody's failure.
        out_of_memory: whether its machine had no memory left for it.
    """

    code: int | None
    cause: str
    preempted: bool = False
    out_of_memory: bool = False

    @classmethod
    def with_code(cls, code: int) -> Self:
        """Return the exit of a process that has left nothing but its exit code."""
        is_known = code != ExitCode.OK and code in set(ExitCode)
        meaning = f": {ExitCode(code).meaning}" if is_known else ""
        return cls(code, f"exit code {code}{meaning}")

    @classmethod
    def said(cls, code: int, said: str) -> Self:
        """Return the exit of a process that has said why in one line, `End.summary`; empty: it has not."""
        if not said:
            return cls.with_code(code)
        reason = said.removeprefix("drained: ") if code == ExitCode.OK else said
        # Who sends a worker SIGTERM takes its machine away, as far as anybody here knows.
        return cls(code, reason, preempted=code == ExitCode.OK and reason in signal.Signals.__members__)


@dataclass(frozen=True)
class LearnerAccess:
    """What a worker needs in order to be let in.

    Attributes:
        address: "host:port" of the learner's data plane, as the worker's machine reaches it.
        token: of the run, for workers.
        tls: the folder of TLS files on the worker's machine; None: the learner does not encrypt.
    """

    address: str
    token: str = field(repr=False)
    tls: Path | None = None


@dataclass(frozen=True)
class WorkerProcess:
    """Where a worker process is.

    Attributes:
        host: the machine, or empty while there is none.
        pid: on that machine, or 0.
        state: "running", "exited", or what it waits for.
    """

    host: str
    pid: int
    state: str


class WorkerPool(abc.ABC):
    """Starts worker processes, and nothing more: whether to start one again is the supervisor's to decide."""

    @abc.abstractmethod
    def start(self, name: str) -> None:
        """Start a worker; returns before it runs.

        Raises:
            ValueError: a worker of that name is alive.
        """

    @abc.abstractmethod
    def adopt(self, name: str, host: str, pid: int) -> bool:
        """Watch a worker from now on that an earlier supervisor of the run has started, if it is alive.

        Args:
            name: of the worker.
            host: where it said it is when it joined; empty if it has not.
            pid: on that machine, or 0.

        Returns:
            Whether it is alive and this pool's from now on, or was already. One that looks for the learner
            where it is not any more is ended instead.
        """

    @abc.abstractmethod
    def avoid(self, hosts: Collection[str]) -> bool:
        """Start no further worker on these machines; return whether that leaves any to start one on."""

    @abc.abstractmethod
    def draining(self) -> Mapping[str, float]:
        """Return the workers whose machine will be taken away, and in how many seconds; inf if unsaid."""

    @abc.abstractmethod
    def expect(self, workers: int) -> None:
        """Tell whoever provides machines how many workers there are to be. Cheap: said again and again."""

    @abc.abstractmethod
    def unplaced(self) -> Mapping[str, str]:
        """Return the workers that were started and have no machine, and what for each is short."""

    @abc.abstractmethod
    def most_workers(self) -> tuple[int, str] | None:
        """Return how many there can be and why no more, or None where nobody knows a limit."""

    @abc.abstractmethod
    def poll(self) -> Mapping[str, Exit | None]:
        """Return how each worker ended, None for those alive; the ended ones until they are started again."""

    @abc.abstractmethod
    def kill(self, name: str) -> None:
        """End a worker at once, without a drain; no effect on one that has ended or is not known."""

    @abc.abstractmethod
    def describe(self) -> Mapping[str, WorkerProcess]:
        """Return where each worker is."""

    @abc.abstractmethod
    def close(self) -> None:
        """End every worker of this pool, asking politely first where that is possible, and wait for it."""
