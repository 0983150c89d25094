"""The lock of the core: one verb at a time, and the update thread is woken when there is work for it."""

import functools
import threading
from collections.abc import Callable
from typing import Concatenate, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


class CoreLock:
    """Held while a verb of the core runs. Verbs may call each other: a thread can take it again."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._has_work: Callable[[], bool] | None = None
        self._due_in_s: Callable[[], float | None] = lambda: None

    def __enter__(self) -> None:
        self._changed.acquire()

    def __exit__(self, *_: object) -> None:
        # The waiting thread would only look and sleep again, so it is woken when there is work, now or at a
        # time that it did not know of.
        if self._has_work is not None and (self._due_in_s() is not None or self._has_work()):
            self._changed.notify_all()
        self._changed.release()

    def wait_for_work(self, has_work: Callable[[], bool], due_in_s: Callable[[], float | None]) -> None:
        """Block the one thread that calls this until `has_work` returns True.

        Args:
            has_work: called with the lock held, so it calls no verb of the core.
            due_in_s: returns in how many seconds there is work by time alone, or None.
        """
        with self._changed:
            self._has_work, self._due_in_s = has_work, due_in_s
            while not has_work():
                self._changed.wait(due_in_s())
            self._has_work = None

    def is_free(self, timeout_s: float) -> bool:
        """Return whether the lock could be taken within `timeout_s`."""
        is_free = self._changed.acquire(timeout=timeout_s)
        if is_free:
            self._changed.release()
        return is_free


class Verbs:
    """A part of the core whose methods marked `locked` may be called from any thread."""

    def __init__(self, lock: CoreLock) -> None:
        self._lock = lock


V = TypeVar("V", bound=Verbs)


def locked(verb: Callable[Concatenate[V, P], R]) -> Callable[Concatenate[V, P], R]:
    """Return a method that holds the core's lock while it runs."""

    @functools.wraps(verb)
    def call(self: V, /, *args: P.args, **kwargs: P.kwargs) -> R:
        with self._lock:  # pyright: ignore[reportPrivateUsage]  # this module owns it
            return verb(self, *args, **kwargs)

    return call
