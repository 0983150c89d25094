"""A cache of thetas, which fetches each from the learner once, however many workers ask at the same time."""

import collections
import threading
from collections.abc import Callable
from concurrent.futures import Future

from protos import codec

_KEPT = 4
"""Versions kept: the newest, and those that replays requested most recently."""


class RelayThetas:
    """Immutable bodies by term and outer step: a restart may change an outer step's theta."""

    def __init__(self, fetch: Callable[[int], codec.Buffer], kept: int = _KEPT) -> None:
        """Fetch missing bodies with `fetch`, which must enforce its own deadline; keep the last `kept`."""
        self._fetch = fetch
        self._kept = kept
        self._lock = threading.Lock()
        self._bodies: collections.OrderedDict[tuple[int, int], Future[codec.Buffer]] = (
            collections.OrderedDict()
        )

    def get(self, term: int, outer_step: int) -> codec.Buffer:
        """Return a body. Concurrent callers for the same body wait for one fetch.

        Raises:
            RefusedError: the learner no longer has that outer step's theta.
            UnavailableError: the learner could not be reached. The next call tries again.
        """
        key = (term, outer_step)
        with self._lock:
            body = self._bodies.get(key)
            is_first = body is None
            if body is None:
                body = self._bodies[key] = Future()
                while len(self._bodies) > self._kept:
                    self._bodies.popitem(last=False)
            self._bodies.move_to_end(key)
        if is_first:
            self._fill(key, body)
        return body.result()

    def _fill(self, key: tuple[int, int], body: Future[codec.Buffer]) -> None:
        try:
            body.set_result(self._fetch(key[1]))
        except Exception as error:  # callers of this fetch get its error; later callers fetch again
            with self._lock:
                self._bodies.pop(key, None)
            body.set_exception(error)
