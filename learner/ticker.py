"""The thread that lets time pass for the core: silence of workers is noticed although nothing happens."""

import threading
from collections.abc import Callable
from typing import Final

from learner.owned_thread import OwnedThread
from learner.runtime import Runtime

_PERIOD_S: Final = 0.25
_JOIN_S: Final = 5.0


class Ticker:
    """Calls `tick` a few times a second."""

    def __init__(self, runtime: Runtime, report: Callable[[BaseException], None]) -> None:
        self._runtime = runtime
        self._stopping = threading.Event()
        self._thread = OwnedThread("ticker", self._tick, report)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread."""
        self._stopping.set()
        self._thread.join(_JOIN_S)

    def _tick(self) -> None:
        while not self._stopping.wait(_PERIOD_S):
            with self._runtime.locked() as core:
                core.tick()
