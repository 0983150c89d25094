"""A substitute for a worker in tests of the Ray pool, without learner and JAX."""

import os
import socket
import threading

from workers.pools.actor import ActorOutcome


class TrivialActor:
    """An actor that runs until it is drained, or ends at once, depending on its name."""

    def __init__(self, learner: str, token: str, tls: str, name: str, run_id: str, logs_dir: str) -> None:
        self._name, self._learner = name, learner
        self._drained = threading.Event()
        self._outcome = ActorOutcome(linger_s=0.5)

    def run(self) -> tuple[int, str]:
        code = self._work()
        self._outcome.settle(code, "as asked")
        return code, "as asked"

    def outcome(self, timeout_s: float) -> tuple[int, str] | None:
        return self._outcome.wait(timeout_s)

    def _work(self) -> int:
        if self._name.startswith("raises"):
            raise RuntimeError("on purpose")
        if self._name.startswith("exits"):
            return 75
        self._drained.wait()
        return 0

    def location(self) -> tuple[str, int, str]:
        return socket.gethostname(), os.getpid(), self._learner

    def drain(self, reason: str) -> None:
        self._drained.set()

    def stack(self) -> str:
        return os.environ["UNSPOOL_TEST"]
