"""Threads that report their exceptions, and periodic calls of a function."""

import threading
from collections.abc import Callable
from typing import Final

_JOIN_S: Final = 5.0


class OwnedThread(threading.Thread):
    """A named thread that reports its exception to its owner."""

    def __init__(self, name: str, body: Callable[[], None], report: Callable[[BaseException], None]) -> None:
        """Run `body` once started; if it raises, call `report` with the exception."""
        super().__init__(name=name, daemon=True)
        self._body = body
        self._report = report

    def run(self) -> None:
        """Run the body."""
        try:
            self._body()
        except BaseException as error:  # report every exception, including SystemExit
            self._report(error)


class Ticker(OwnedThread):
    """Calls a function periodically."""

    def __init__(
        self, name: str, period_s: float, tick: Callable[[], None], report: Callable[[BaseException], None]
    ) -> None:
        """Call `tick` every `period_s` once started; if it raises, stop and call `report`."""
        super().__init__(name, self._tick_periodically, report)
        self._period_s = period_s
        self._tick = tick
        self._stopping = threading.Event()

    def stop(self) -> None:
        """Stop the thread, which must have been started, and wait for it."""
        self._stopping.set()
        self.join(_JOIN_S)

    def _tick_periodically(self) -> None:
        while not self._stopping.wait(self._period_s):
            self._tick()
