"""The core's lock: it serializes operations and wakes the update thread when there is work."""

import functools
import threading
from collections.abc import Callable
from typing import Concatenate, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


class CoreLock:
    """A reentrant lock held during each operation of the core, so operations may call each other."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._has_work: Callable[[], bool] | None = None
        self._due_in_s: Callable[[], float | None] = lambda: None

    def __enter__(self) -> None:
        self._changed.acquire()

    def __exit__(self, *_: object) -> None:
        # Notify only if there is work now or at a known time, which may be earlier than the waiting thread's
        # timeout. Any other wake-up would be wasted.
        if self._has_work is not None and (self._due_in_s() is not None or self._has_work()):
            self._changed.notify_all()
        self._changed.release()

    def wait_for_work(self, has_work: Callable[[], bool], due_in_s: Callable[[], float | None]) -> None:
        """Block the one thread that calls this until `has_work` returns True.

        Args:
            has_work: called with the lock held; must not call a `locked` method.
            due_in_s: returns in how many seconds there will be work by time alone, or None.
        """
        with self._changed:
            self._has_work, self._due_in_s = has_work, due_in_s
            while not has_work():
                self._changed.wait(due_in_s())
            self._has_work = None

    def is_free(self, timeout_s: float) -> bool:
        """Return whether the lock could be acquired within `timeout_s`."""
        is_free = self._changed.acquire(timeout=timeout_s)
        if is_free:
            self._changed.release()
        return is_free


class LockedCommands:
    """Base of the parts of the core; any thread may call their methods marked `locked`."""

    def __init__(self, lock: CoreLock) -> None:
        self._lock = lock


V = TypeVar("V", bound=LockedCommands)


def locked(verb: Callable[Concatenate[V, P], R]) -> Callable[Concatenate[V, P], R]:
    """Decorate a method to hold the core's lock while it runs."""

    @functools.wraps(verb)
    def call(self: V, /, *args: P.args, **kwargs: P.kwargs) -> R:
        with self._lock:  # pyright: ignore[reportPrivateUsage]  # this module owns it
            return verb(self, *args, **kwargs)

    return call
