"""Local worker processes: children of this process, and adopted ones."""

import abc
import contextlib
import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Self

from workers.pools.pool import Exit

PROGRAM = (sys.executable, "-P", str(Path(__file__).resolve().parents[2] / "service" / "__main__.py"))
"""The command line of this installation. With `-m service`, the current directory could shadow it."""

_VMSTAT = Path("/proc/vmstat")


class LocalProcess(abc.ABC):
    """A process that leads its own session.

    Attributes:
        pid: process id.
    """

    pid: int

    @abc.abstractmethod
    def exit(self) -> Exit | None:
        """Return how the process ended, None while it runs."""

    @abc.abstractmethod
    def wait(self, timeout_s: float) -> bool:
        """Wait until it has ended; return whether it has."""

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to this process alone, unless it has ended: its pid may have been reused."""
        if self.exit() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self) -> None:
        """Kill the process and its process group at once."""
        if self.exit() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)


class StartedProcess(LocalProcess):
    """A child of this process."""

    def __init__(
        self, process: "subprocess.Popen[bytes]", last_log_line: Callable[[], str] = lambda: ""
    ) -> None:
        """Watch a child.

        Args:
            process: the child.
            last_log_line: returns the reason of its exit, or "" if it left none.
        """
        self.pid = process.pid
        self._last_log_line = last_log_line
        self._process = process
        self._exit: Exit | None = None
        self._was_killed = False
        self._oom_kills_before = _oom_kills()

    def exit(self) -> Exit | None:
        code = self._process.poll()
        if self._exit is None and code is not None:
            self._exit = self._exit_of(code)
        return self._exit

    def wait(self, timeout_s: float) -> bool:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout_s)
        return self.exit() is not None

    def kill(self) -> None:
        self._was_killed = True
        super().kill()

    def _exit_of(self, code: int) -> Exit:
        if self._is_out_of_memory(code):
            return Exit(None, "killed by the kernel: out of memory", out_of_memory=True)
        if code < 0:
            return Exit(None, f"killed by {signal.Signals(-code).name}")
        return Exit.with_note(code, self._last_log_line())

    def _is_out_of_memory(self, code: int) -> bool:
        # The kernel's count names no process: take this one if nobody here killed it and the count grew.
        return code == -signal.SIGKILL and not self._was_killed and _oom_kills() > self._oom_kills_before


class AdoptedProcess(LocalProcess):
    """A process that another process started. Its exit code is available only to its parent.

    Attributes:
        arguments: its command line.
    """

    def __init__(self, pid: int) -> None:
        """Watch the process `pid`.

        Raises:
            ProcessLookupError: there is no such process.
        """
        self.pid = pid
        # An open pidfd refers to this process even if its pid is reused.
        self._descriptor: int | None = os.pidfd_open(pid)
        self.arguments = _arguments_of(pid)

    @classmethod
    def find(cls, arguments: Collection[str]) -> list[Self]:
        """Return the processes of this user that were started with all of `arguments` and lead a session."""
        if not hasattr(os, "pidfd_open"):
            return []  # not Linux
        pids = [int(path.name) for path in Path("/proc").glob("[0-9]*")]
        found = []
        for pid in pids:
            if set(arguments) <= _arguments_of(pid):
                with contextlib.suppress(OSError):  # it has ended since, or is another user's
                    found.append(cls(pid))
        # The constructor reads the arguments again with the pidfd open, in case the pid was reused in
        # between.
        return [one for one in found if set(arguments) <= one.arguments and one._leads_its_session()]

    def _leads_its_session(self) -> bool:
        return self.exit() is None and os.getsid(self.pid) == self.pid

    def exit(self) -> Exit | None:
        return Exit(None, "ended; a previous supervisor received its exit code") if self.wait(0.0) else None

    def wait(self, timeout_s: float) -> bool:
        if self._descriptor is not None:
            ended = select.poll()  # a descriptor's number may be too high for `select.select`
            ended.register(self._descriptor, select.POLLIN)
            if ended.poll(1000 * timeout_s):
                os.close(self._descriptor)
                self._descriptor = None
        return self._descriptor is None


def _arguments_of(pid: int) -> set[str]:
    try:
        return set(Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0"))
    except OSError:
        return set()


def _oom_kills() -> int:
    """The number of processes of this machine that the kernel's OOM killer has killed; 0 where unknown."""
    try:
        lines = _VMSTAT.read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)
