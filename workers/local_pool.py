"""Workers as processes of this machine."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from workers.exits import ExitCode
from workers.pool import Exit, WorkerPool, WorkerProcess


class LocalPool(WorkerPool):
    """Each worker is `python -m service worker ...`, in a session of its own: no terminal stops it."""

    def __init__(
        self,
        *,
        learner: str,
        token_file: Path,
        logs_dir: Path,
        environment: Mapping[str, str],
        tls: Path | None = None,
        command: Sequence[str] = (sys.executable, "-m", "service", "worker"),
        close_deadline_s: float = 20.0,
    ) -> None:
        """Prepare a pool; no process starts before `start`.

        Args:
            learner: "host:port" of the learner's data plane.
            token_file: holds the run's token, so that it appears in no process list.
            logs_dir: gets `<name>.log` of each worker, appended to.
            environment: from `workers.bootstrap.environment`; added to this process's own.
            tls: the folder of the workers' TLS files; None: the learner does not encrypt.
            command: starts a worker; `--learner`, `--token-file`, `--name` and `--tls` are added to it.
            close_deadline_s: how long `close` waits for drains before it kills.
        """
        self._learner = learner
        self._token_file = token_file
        self._logs_dir = logs_dir
        self._environment = dict(environment)
        self._tls = ("--tls", str(tls)) if tls is not None else ()
        self._command = tuple(command)
        self._close_deadline_s = close_deadline_s
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str) -> None:
        if name in self._processes and self._processes[name].poll() is None:
            raise ValueError(f"LocalPool.start({name!r}): is running already")
        self._logs_dir.mkdir(parents=True, exist_ok=True)
        with (self._logs_dir / f"{name}.log").open("ab") as log:
            self._processes[name] = subprocess.Popen(
                [*self._command, *self._arguments(name)],
                env=os.environ | self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def poll(self) -> Mapping[str, Exit | None]:
        return {name: _exit(process.poll()) for name, process in self._processes.items()}

    def kill(self, name: str) -> None:
        process = self._processes.get(name)
        if process is not None:
            _signal_session(process, signal.SIGKILL)
            process.wait()

    def describe(self) -> Mapping[str, WorkerProcess]:
        host = socket.gethostname()
        return {
            name: WorkerProcess(host, process.pid, "running" if process.poll() is None else "exited")
            for name, process in self._processes.items()
        }

    def close(self) -> None:
        for process in self._processes.values():
            if process.poll() is None:
                process.terminate()
        deadline_s = time.monotonic() + self._close_deadline_s
        for process in self._processes.values():
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(max(0.0, deadline_s - time.monotonic()))
            _signal_session(process, signal.SIGKILL)
            process.wait()

    def _arguments(self, name: str) -> list[str]:
        return ["--learner", self._learner, "--token-file", str(self._token_file), "--name", name, *self._tls]


def _signal_session(process: subprocess.Popen[bytes], signal_number: int) -> None:
    # The worker leads its session's process group; what it has started itself goes with it. A process that
    # was waited for is left alone: its number may be somebody else's by now.
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal_number)


def _exit(code: int | None) -> Exit | None:
    if code is None:
        return None
    if code < 0:
        return Exit(None, f"killed by {signal.Signals(-code).name}")
    with contextlib.suppress(ValueError):
        return Exit(code, ExitCode(code).name.lower())
    return Exit(code, f"exit code {code}")
