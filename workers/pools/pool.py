"""The interface to worker processes: started, watched and killed by name, wherever they run."""

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
        code: its exit code (`protos.exit_codes.ExitCode`), or None if it did not exit by itself.
        cause: for people.
        preempted: whether its machine was taken away, which does not count as a failure.
        out_of_memory: whether its machine ran out of memory.
    """

    code: int | None
    cause: str
    preempted: bool = False
    out_of_memory: bool = False

    @classmethod
    def with_note(cls, code: int, note: str) -> Self:
        """Return the exit of a process that has left a one-line reason (`End.summary`), or "" for none."""
        if not note:
            is_known = code != ExitCode.OK and code in set(ExitCode)
            return cls(code, f"exit code {code}" + (f": {ExitCode(code).meaning}" if is_known else ""))
        reason = note.removeprefix("drained: ") if code == ExitCode.OK else note
        # Assume that SIGTERM from outside means that the machine is being taken away.
        return cls(code, reason, preempted=code == ExitCode.OK and reason in signal.Signals.__members__)


@dataclass(frozen=True)
class LearnerAccess:
    """What a worker needs to be admitted by the learner.

    Attributes:
        address: "host:port" of the learner's data plane, as reached from the worker's machine.
        token: of the run, for workers.
        tls: the folder of TLS files on the worker's machine; None: the learner does not encrypt.
    """

    address: str
    token: str = field(repr=False)
    tls: Path | None = None


@dataclass(frozen=True)
class WorkerProcess:
    """Location and state of a worker process.

    Attributes:
        host: the machine, or empty while there is none.
        pid: on that machine, or 0.
        state: "running", "exited", or what it waits for.
    """

    host: str
    pid: int
    state: str


class WorkerPool(abc.ABC):
    """Starts and stops worker processes. The supervisor decides whether to restart one."""

    @abc.abstractmethod
    def start(self, name: str) -> None:
        """Start a worker, without waiting until it runs.

        Raises:
            ValueError: a worker of that name is alive.
        """

    @abc.abstractmethod
    def adopt(self, name: str, host: str, pid: int) -> bool:
        """Watch a worker that an earlier supervisor of the run started, if it is alive.

        Args:
            name: of the worker.
            host: its host according to its Join; empty if it has not joined.
            pid: on that machine, or 0.

        Returns:
            Whether the worker is alive and belongs to this pool. A worker that looks for its learner at an
            outdated address is killed instead.
        """

    @abc.abstractmethod
    def avoid(self, hosts: Collection[str]) -> bool:
        """Start no more workers on these machines; return whether any other machine remains."""

    @abc.abstractmethod
    def draining(self) -> Mapping[str, float]:
        """Return the seconds until each draining worker's machine is taken away; inf if unknown."""

    @abc.abstractmethod
    def expect(self, workers: int) -> None:
        """Request machines for this many workers. Cheap, so it may be called repeatedly."""

    @abc.abstractmethod
    def unplaced(self) -> Mapping[str, str]:
        """Return the started workers without a machine, each with the resource that it lacks."""

    @abc.abstractmethod
    def most_workers(self) -> tuple[int, str] | None:
        """Return the maximum number of workers and what limits it, or None if no limit is known."""

    @abc.abstractmethod
    def poll(self) -> Mapping[str, Exit | None]:
        """Return how each worker ended, or None; an end is listed until the worker is restarted."""

    @abc.abstractmethod
    def kill(self, name: str) -> None:
        """Kill a worker at once, without a drain; no effect on one that has ended or is unknown."""

    @abc.abstractmethod
    def describe(self) -> Mapping[str, WorkerProcess]:
        """Return the location and state of each worker."""

    @abc.abstractmethod
    def close(self) -> None:
        """Drain every worker of this pool where possible, kill the rest, and wait for all of them."""
