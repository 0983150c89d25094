"""SIGTERM and SIGINT: the first stops the learner gracefully, the second faster, the third kills it."""

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Final

from protos.exit_codes import ExitCode

_PATIENCE: Final = 2
_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)


@contextlib.contextmanager
def stop_signals(put: Callable[[signal.Signals], None]) -> Iterator[None]:
    """Pass the first two signals to `put`; a third ends the process at once, without a checkpoint.

    `put` runs inside a signal handler, so it must be reentrant, as `SimpleQueue.put` is. Only the main thread
    can handle signals; in other threads, this does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    received = 0

    def note(number: int, frame: FrameType | None) -> None:
        nonlocal received
        received += 1
        if received > _PATIENCE:
            os._exit(ExitCode.TEMPORARY)
        put(signal.Signals(number))

    before = {number: signal.signal(number, note) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
