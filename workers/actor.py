"""A worker as the object behind a Ray actor.

A plain class, importable under the same name on every node: `workers.ray_pool` wraps it where it starts one.
"""

import os
import socket
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from protos.tls import Identity
from workers.main import build, log_to
from workers.settings import WorkerSettings

if TYPE_CHECKING:
    from workers.worker import UnrollWorker


class WorkerActor:
    """Runs one worker in this process. `run` is the work; the other methods are answered beside it."""

    def __init__(self, learner: str, token: str, tls: str, name: str, run_id: str, logs_dir: str) -> None:
        """Take what a worker is built from; `run` is what imports JAX.

        Args:
            learner: "host:port" of the learner's data plane.
            token: of the run, for workers.
            tls: the folder of the worker's TLS files on this node; empty: the learner does not encrypt.
            name: of the worker.
            run_id: of the run.
            logs_dir: gets `<name>.log`, if this node can see that directory.
        """
        self._settings = WorkerSettings(
            learner=learner,
            token=token,
            name=name,
            run_id=run_id,
            tls=Identity(Path(tls)) if tls else None,
        )
        self._logs_dir = Path(logs_dir)
        self._lock = threading.Lock()
        self._drain_reason = ""
        self._worker: UnrollWorker | None = None

    def run(self) -> int:
        """Work until the end; returns the exit code that a process would have."""
        log_to(self._logs_dir / f"{self._settings.name}.log" if self._logs_dir.is_dir() else None)
        worker = build(self._settings)
        with self._lock:
            self._worker = worker
            reason = self._drain_reason
        if reason:
            worker.drain(reason)
        return worker.run()

    def whereabouts(self) -> tuple[str, int]:
        """Return the host and the process that this actor is in."""
        return socket.gethostname(), os.getpid()

    def drain(self, reason: str) -> None:
        """Let the worker give its lanes back and end; `run` returns then."""
        with self._lock:
            self._drain_reason = reason
            worker = self._worker
        if worker is not None:
            worker.drain(reason)

    def stack(self) -> str:
        """Return what every thread of this process is doing."""
        with self._lock:
            worker = self._worker
        return worker.stack() if worker is not None else "the worker has not started yet"
