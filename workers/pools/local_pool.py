"""Workers as local processes."""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from workers.exits import EXIT_NOTE, clear_note, read_note
from workers.pools.local_process import PROGRAM, AdoptedProcess, LocalProcess, StartedProcess
from workers.pools.pool import Exit, WorkerPool, WorkerProcess

_LAST_WAIT_S = 10.0  # a killed process ends at once, unless it is blocked in the kernel


class LocalPool(WorkerPool):
    """Runs each worker as `unspool worker ...` in its own session, so that no terminal stops it."""

    def __init__(
        self,
        *,
        learner: str,
        token_file: Path,
        logs_dir: Path,
        environment: Mapping[str, str],
        tls: Path | None = None,
        command: Sequence[str] = (*PROGRAM, "worker"),
        close_deadline_s: float = 20.0,
    ) -> None:
        """Prepare a pool; no process starts before `start`.

        Args:
            learner: "host:port" of the learner's data plane.
            token_file: contains the run's token, which therefore appears in no process list.
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
        self._processes: dict[str, LocalProcess] = {}

    def start(self, name: str) -> None:
        if self._is_alive(name):
            raise ValueError(f"LocalPool.start({name!r}): is running already")
        self._logs_dir.mkdir(parents=True, exist_ok=True)
        note = (self._logs_dir / f"{name}.exit").resolve()
        clear_note(note)
        with (self._logs_dir / f"{name}.log").open("ab") as log:
            self._processes[name] = StartedProcess(
                subprocess.Popen(
                    [*self._command, *self._arguments(name)],
                    env=os.environ | self._environment | {EXIT_NOTE: str(note)},
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                ),
                lambda: read_note(note),
            )

    def adopt(self, name: str, host: str, pid: int) -> bool:
        if self._is_alive(name):
            return True
        has_joined = host == socket.gethostname()
        # The name and the token file together identify this worker of this run.
        for found in AdoptedProcess.find((name, str(self._token_file))):
            if self._learner in found.arguments or (has_joined and found.pid == pid):
                self._processes[name] = found
                return True
            found.kill()  # its learner's address is outdated
        return False

    def avoid(self, hosts: Collection[str]) -> bool:
        return socket.gethostname() not in hosts

    def draining(self) -> Mapping[str, float]:
        return {}  # a machine that shuts down notifies its processes itself, with SIGTERM

    def expect(self, workers: int) -> None:
        pass  # there is one machine

    def unplaced(self) -> Mapping[str, str]:
        return {}

    def most_workers(self) -> tuple[int, str] | None:
        return None  # the pool sets no limit on processes

    def poll(self) -> Mapping[str, Exit | None]:
        return {name: process.exit() for name, process in self._processes.items()}

    def kill(self, name: str) -> None:
        process = self._processes.get(name)
        if process is not None:
            process.kill()
            process.wait(_LAST_WAIT_S)

    def describe(self) -> Mapping[str, WorkerProcess]:
        host = socket.gethostname()
        return {
            name: WorkerProcess(host, process.pid, "running" if process.exit() is None else "exited")
            for name, process in self._processes.items()
        }

    def close(self) -> None:
        for process in self._processes.values():
            process.signal(signal.SIGTERM)
        deadline_s = time.monotonic() + self._close_deadline_s
        for process in self._processes.values():
            process.wait(max(0.0, deadline_s - time.monotonic()))
            process.kill()
            process.wait(_LAST_WAIT_S)

    def _is_alive(self, name: str) -> bool:
        process = self._processes.get(name)
        return process is not None and process.exit() is None

    def _arguments(self, name: str) -> list[str]:
        return ["--learner", self._learner, "--token-file", str(self._token_file), "--name", name, *self._tls]
