"""Threads that report their exceptions, and periodic calls of a function."""

import threading
from collections.abc import Callable
from typing import Final

_JOIN_S: Final = 5.0


class OwnedThread:
    """A named thread that reports its exception to its owner."""

    def __init__(self, name: str, body: Callable[[], None], report: Callable[[BaseException], None]) -> None:
        """Run `body` once started; if it raises, call `report` with the exception."""
        self._body = body
        self._report = report
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def join(self, timeout_s: float) -> None:
        """Wait up to `timeout_s` for the thread to end."""
        if self._thread.ident is not None:
            self._thread.join(timeout_s)

    def _run(self) -> None:
        try:
            self._body()
        except BaseException as error:  # report every exception, including SystemExit
            self._report(error)


class Ticker:
    """Calls a function periodically."""

    def __init__(
        self, name: str, period_s: float, tick: Callable[[], None], report: Callable[[BaseException], None]
    ) -> None:
        """Call `tick` every `period_s` once started; if it raises, stop and call `report`."""
        self._period_s = period_s
        self._tick = tick
        self._stopping = threading.Event()
        self._thread = OwnedThread(name, self._run, report)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Stop the thread and wait for it."""
        self._stopping.set()
        self._thread.join(_JOIN_S)

    def _run(self) -> None:
        while not self._stopping.wait(self._period_s):
            self._tick()
