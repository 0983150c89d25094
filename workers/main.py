"""Entry point of a worker process."""

import faulthandler
import logging
import os
import signal
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from workers.exits import End, note_from_environment, write_note
from workers.numeric_environment import pin_worker
from workers.settings import WorkerSettings

if TYPE_CHECKING:
    from workers.unrolling.worker import UnrollWorker

_SIGNAL_LATENCY_S = 0.2
_LOG_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


class Drainable(Protocol):
    """The main work of a process: a worker or a relay."""

    def run(self) -> int:
        """Work until the end; return the process's exit code."""
        ...

    def drain(self, reason: str) -> None:
        """Return the lanes, and return from `run`."""
        ...


def run(settings: WorkerSettings, environment: Mapping[str, str]) -> int:
    """Run a worker as this process's main work and return its exit code.

    The first SIGTERM or SIGINT drains the worker, the second ends the process at once; SIGUSR1 writes every
    thread's stack to stderr. The worker runs in a second thread, so that no signal handler interrupts code
    that holds a lock.

    Args:
        settings: of this process.
        environment: from `workers.bootstrap.environment`, or empty if the process was started with it.
            Variables that are already set take precedence.
    """
    for name, value in environment.items():
        os.environ.setdefault(name, value)
    log_to(None)
    faulthandler.enable()
    note = note_from_environment()
    try:
        worker = build(settings)
        code = run_until_signalled(worker)
    except Exception as error:
        write_note(note, End.crashed(error))
        raise
    write_note(note, worker.end)
    return code


def run_until_signalled(process: Drainable) -> int:
    """Run `process` as this process's main work; drain it at SIGTERM or SIGINT. Returns its exit code."""
    faulthandler.register(signal.SIGUSR1, all_threads=True)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda received, _frame: _drain(process, received))
    codes: list[int] = []
    thread = threading.Thread(target=lambda: codes.append(process.run()), name="worker")
    thread.start()
    # The system may deliver a signal to any thread, but only the main thread runs handlers, and it must wake
    # up for them.
    while thread.is_alive():
        thread.join(_SIGNAL_LATENCY_S)
    return codes[0]


def build(settings: WorkerSettings) -> "UnrollWorker":
    """Connect a worker to its learner. JAX is imported only here, after the environment has been set.

    Raises:
        TlsError: the worker's TLS files are unusable.
    """
    for foreign in pin_worker():
        logging.getLogger(__name__).warning("%s", foreign)
    from workers.session.client import LearnerClient
    from workers.unrolling.worker import UnrollWorker

    return UnrollWorker(settings, LearnerClient(settings.learner, settings.token, settings.tls))


def log_to(path: Path | None) -> None:
    """Append this process's log to `path`, or write it to stderr."""
    logging.basicConfig(level=logging.INFO, format=_LOG_FORMAT, filename=path)


def _drain(process: Drainable, received: int) -> None:
    signal.signal(received, signal.SIG_DFL)
    process.drain(signal.Signals(received).name)
