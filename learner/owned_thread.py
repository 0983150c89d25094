"""Threads that cannot fail unseen."""

import threading
from collections.abc import Callable


class OwnedThread:
    """A named thread whose exception reaches its owner."""

    def __init__(self, name: str, body: Callable[[], None], report: Callable[[BaseException], None]) -> None:
        """Run `body` once started; `report` gets the exception if it raises one."""
        self._body = body
        self._report = report
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def join(self, timeout_s: float) -> None:
        """Wait for the end of the body."""
        if self._thread.ident is not None:
            self._thread.join(timeout_s)

    def _run(self) -> None:
        try:
            self._body()
        except BaseException as error:  # whatever it is, the owner must know
            self._report(error)
