"""Child processes of this program, each with its own session and log."""

import contextlib
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from workers.pools.local_process import PROGRAM

_TAIL_BYTES = 4096
_END_S = 20.0


class ChildProcess:
    """A child process `unspool ...` in its own session.

    Attributes:
        pid: process id.
    """

    def __init__(self, arguments: Sequence[str], log_path: Path, environment: Mapping[str, str]) -> None:
        """Start the process.

        Args:
            arguments: of `unspool`.
            log_path: its output is appended to this file.
            environment: added to this process's own.
        """
        self._log_path = log_path
        with log_path.open("ab") as log:
            self._log_start = log.tell()
            self._process = subprocess.Popen(
                [*PROGRAM, *arguments],
                env=os.environ | {"PYTHONUTF8": "1"} | dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.pid = self._process.pid

    def poll(self) -> int | None:
        """Return its exit code, negative for a signal; None while it runs."""
        return self._process.poll()

    def last_log_line(self) -> str:
        """Return the last line of its output, if any, with the path of the log."""
        return last_line(self._log_path, self._log_start)

    def terminate(self) -> None:
        """Send SIGTERM."""
        self._process.terminate()

    def kill(self) -> None:
        """Kill the process, and whatever it started in its session."""
        if self._process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def end(self) -> None:
        """Send SIGTERM, wait, and kill the process if it does not end."""
        if self._process.poll() is None:
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_END_S)
        self.kill()


def last_line(log_path: Path, start: int = 0) -> str:
    """Return the last line of a log after byte `start`, if any, with the path of the log."""
    with log_path.open("rb") as log:
        log.seek(max(start, log_path.stat().st_size - _TAIL_BYTES))
        lines = log.read().decode(errors="replace").strip().splitlines()
    last = lines[-1].removeprefix("unspool: ") if lines else ""
    return last if "(log: " in last else f"{last} (log: {log_path})".lstrip()
