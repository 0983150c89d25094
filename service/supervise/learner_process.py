"""A learner that an earlier supervisor started: finding it, and supervising it without being its parent."""

import contextlib
import signal
import socket
from typing import Final

from learner.storage.files import is_locked, lock_holder
from protos.exit_codes import ExitCode, RunInUseError, UnspoolError
from service.run.client import connected
from service.run.last_status import ENDED, stored_status
from service.run.run_directory import Endpoints, RunDirectory
from service.supervise.child_process import ChildProcess, last_line
from workers.pools.local_process import AdoptedProcess

_END_S: Final = 20.0
_FAILURES: Final = {"FAILED": ExitCode.RUN_FAILED, "UNTRAINED": ExitCode.UNTRAINED}


class AdoptedLearner:
    """A running learner that is not a child of this process; its methods are those of `ChildProcess`."""

    def __init__(self, run: RunDirectory, process: AdoptedProcess) -> None:
        self._run = run
        self._process = process
        self.pid = process.pid

    def poll(self) -> int | None:
        """Return the exit code implied by the learner's last status: only a parent receives the real one."""
        if self._process.exit() is None:
            return None
        status = stored_status(self._run)
        if status is None or status.state not in ENDED:
            return ExitCode.FAILED
        return _FAILURES.get(status.state, ExitCode.OK)

    def last_log_line(self) -> str:
        """Return the last line of its output, if any, with the path of the log."""
        return last_line(self._run.log_path("learner"))

    def terminate(self) -> None:
        """Send SIGTERM, which stops it with a checkpoint."""
        self._process.signal(signal.SIGTERM)

    def kill(self) -> None:
        """Kill it."""
        # Not its process group, which it may share with the shell that started it.
        self._process.signal(signal.SIGKILL)
        self._process.wait(_END_S)

    def end(self) -> None:
        """Send SIGTERM, wait, and kill it if it does not end."""
        self.terminate()
        self._process.wait(_END_S)
        self.kill()


LearnerProcess = ChildProcess | AdoptedLearner


def running_learner(run: RunDirectory) -> AdoptedLearner | None:
    """Return the learner of `run` that runs without a supervisor, or None if there is none.

    The pid alone does not identify it, because pids are reused. It is the learner if the lock is held and
    names it, the endpoints name it, and the server at these endpoints reports the same generation.

    Raises:
        RunInUseError: a learner runs and cannot be supervised from here.
    """
    lock = run.path / "LOCK"
    if not is_locked(lock):
        return None
    pid, host = lock_holder(lock) or (0, "an unknown machine")
    if host == socket.gethostname():
        with contextlib.suppress(UnspoolError, OSError):
            process = AdoptedProcess(pid)
            endpoints = run.endpoints()
            if endpoints.pid == pid and _answers(run, endpoints):
                return AdoptedLearner(run, process)
    raise RunInUseError(
        f"{run.path} is in use by a learner that cannot be supervised from here (pid {pid} on {host}); "
        f"launch there, stop it with `unspool stop {run.path}`, or take the run over with --takeover"
    )


def _answers(run: RunDirectory, endpoints: Endpoints) -> bool:
    with connected(run) as admin:
        status = admin.status()
    return bool((status.run, status.term) == (endpoints.run, endpoints.term))
