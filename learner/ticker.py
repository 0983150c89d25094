"""Threads that let time pass: what is due is done although nothing happens."""

import threading
from collections.abc import Callable
from typing import Final

from learner.owned_thread import OwnedThread

_JOIN_S: Final = 5.0


class Ticker:
    """Calls a function again and again."""

    def __init__(
        self, name: str, period_s: float, tick: Callable[[], None], report: Callable[[BaseException], None]
    ) -> None:
        """Call `tick` every `period_s` once started; `report` gets the exception that ends that, if any."""
        self._period_s = period_s
        self._tick = tick
        self._stopping = threading.Event()
        self._thread = OwnedThread(name, self._run, report)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread."""
        self._stopping.set()
        self._thread.join(_JOIN_S)

    def _run(self) -> None:
        while not self._stopping.wait(self._period_s):
            self._tick()
