"""The worker that runs in a Ray actor.

A plain class, importable under the same name on every node; `workers.pools.ray_pool` wraps it.
"""

import logging
import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from protos.exit_codes import ExitCode
from protos.rpc.tls import Identity
from workers.exits import End
from workers.main import build, log_to
from workers.settings import WorkerSettings

if TYPE_CHECKING:
    from workers.unrolling.worker import UnrollWorker

_logger = logging.getLogger(__name__)

_LINGER_S = 10.0

Ended: TypeAlias = tuple[int, str]
"""An exit code, and its reason in one line."""


class ActorOutcome:
    """The outcome of a worker's run, kept for a supervisor that did not start it; then the process exits.

    An actor that outlives its supervisor would otherwise keep its process, and its Ray resources,
    indefinitely.
    """

    def __init__(self, linger_s: float = _LINGER_S, leave: Callable[[int], object] = os._exit) -> None:
        """Start without an outcome.

        Args:
            linger_s: how long after the outcome the process exits.
            leave: exits the process, with an exit code. The default bypasses the shutdown of Ray and of
                Python: either may hang and keep devices allocated.
        """
        self._linger_s = linger_s
        self._leave = leave
        self._ended: Ended | None = None
        self._is_there = threading.Event()

    def settle(self, code: int, reason: str = "") -> None:
        """Set the outcome: an exit code, and its reason in one line."""
        self._ended = int(code), reason
        self._is_there.set()
        timer = threading.Timer(self._linger_s, self._leave, (int(code),))
        timer.name, timer.daemon = "linger", True
        timer.start()

    def wait(self, timeout_s: float) -> Ended | None:
        """Return the outcome, or None while the work continues."""
        self._is_there.wait(timeout_s)
        return self._ended


class WorkerActor:
    """Runs one worker in this process. `run` is the work; the other methods are answered while it runs."""

    def __init__(
        self,
        learner: str,
        token: str,
        tls: str,
        name: str,
        run_id: str,
        logs_dir: str,
        outcome: ActorOutcome | None = None,
    ) -> None:
        """Prepare a worker; only `run` imports JAX.

        Args:
            learner: "host:port" of the learner's data plane.
            token: of the run, for workers.
            tls: the folder of the worker's TLS files on this node; empty: the learner does not encrypt.
            name: of the worker.
            run_id: of the run.
            logs_dir: gets `<name>.log`, if this node can see that directory.
            outcome: receives the result of `run`; None for one that then ends this process.
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
        self._outcome = outcome or ActorOutcome()

    def run(self) -> Ended:
        """Work until the end; return the worker's exit code and its reason. The process then exits."""
        end = End(ExitCode.FAILED, "")
        try:
            end = self._work()
        except Exception as error:
            end = End.crashed(error)
            _logger.exception("%s ends: %s", self._settings.name, end.summary)
        finally:
            self._outcome.settle(end.code, end.summary)
        return int(end.code), end.summary

    def outcome(self, timeout_s: float) -> Ended | None:
        """Return the result of `run`, or None if there is none after `timeout_s`."""
        return self._outcome.wait(timeout_s)

    def location(self) -> tuple[str, int, str]:
        """Return this actor's host and process id, and the address of its learner."""
        return socket.gethostname(), os.getpid(), self._settings.learner

    def drain(self, reason: str) -> None:
        """Let the worker return its lanes and end; `run` returns then."""
        with self._lock:
            self._drain_reason = reason
            worker = self._worker
        if worker is not None:
            worker.drain(reason)

    def stack(self) -> str:
        """Return the stack of every thread of this process."""
        with self._lock:
            worker = self._worker
        return worker.stack() if worker is not None else "the worker has not started yet"

    def _work(self) -> End:
        log_to(self._logs_dir / f"{self._settings.name}.log" if self._logs_dir.is_dir() else None)
        worker = build(self._settings)
        with self._lock:
            self._worker = worker
            reason = self._drain_reason
        if reason:
            worker.drain(reason)
        worker.run()
        return worker.end
