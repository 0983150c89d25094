"""What stands in for a worker in the tests of the Ray pool: no learner, no JAX."""

import os
import socket
import threading


class TrivialActor:
    """Runs until it is drained, or ends at once if its name says so."""

    def __init__(self, learner: str, token: str, tls: str, name: str, run_id: str, logs_dir: str) -> None:
        self._name = name
        self._drained = threading.Event()

    def run(self) -> int:
        if self._name.startswith("raises"):
            raise RuntimeError("on purpose")
        if self._name.startswith("exits"):
            return 75
        self._drained.wait()
        return 0

    def whereabouts(self) -> tuple[str, int]:
        return socket.gethostname(), os.getpid()

    def drain(self, reason: str) -> None:
        self._drained.set()

    def stack(self) -> str:
        return os.environ["UNSPOOL_TEST"]
