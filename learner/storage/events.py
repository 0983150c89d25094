"""The event log: a bounded list in memory, and one JSON line per event on disk."""

import contextlib
import json
import threading
import time
from collections import deque
from collections.abc import Callable
from io import SEEK_END
from pathlib import Path
from typing import Final, Literal

from learner.storage.files import AppendFile
from protos.messages import as_dict
from protos.unspool.v1.admin_pb2 import Event

Level = Literal["info", "warning", "error"]

_KEPT: Final = 1000
_TAIL_BYTES: Final = 64 * 1024


class EventLog:
    """Numbered events; the numbers continue those of the log on disk. Thread-safe."""

    def __init__(self, path: Path, wall_clock: Callable[[], float] = time.time) -> None:
        self._lock = threading.Lock()
        self._wall_clock = wall_clock
        self._events: deque[Event] = deque(_tail(path), maxlen=_KEPT)
        self._number = self._events[-1].number if self._events else 0
        # A crash may have truncated the last line.
        self._separator = b"\n" if path.exists() and path.read_bytes()[-1:] not in (b"", b"\n") else b""
        self._file = AppendFile(path)

    def add(self, level: Level, kind: str, text: str) -> None:
        """Record an event; errors in writing the log are ignored."""
        with self._lock:
            self._number += 1
            event = Event(
                number=self._number, unix_time_s=self._wall_clock(), level=level, kind=kind, text=text
            )
            self._events.append(event)
            self._write(event)

    def after(self, number: int, limit: int) -> list[Event]:
        """Return up to `limit` events with numbers larger than `number`, oldest first."""
        with self._lock:
            return [event for event in self._events if event.number > number][:limit]

    def latest(self, count: int) -> list[Event]:
        """Return the last `count` events, oldest first."""
        with self._lock:
            return list(self._events)[-count:]

    def close(self) -> None:
        """Close the file; later events are kept in memory only."""
        with self._lock:
            self._file.close()

    def _write(self, event: Event) -> None:
        with contextlib.suppress(OSError, ValueError):
            self._file.append(self._separator + json.dumps(as_dict(event)).encode() + b"\n")
            self._separator = b""


def _tail(path: Path) -> list[Event]:
    """Return the events at the end of a log file, without lines truncated by a crash."""
    if not path.exists():
        return []
    with path.open("rb") as file:
        size = file.seek(0, SEEK_END)
        file.seek(max(0, size - _TAIL_BYTES))
        lines = file.read().decode(errors="replace").splitlines()
    events = []
    for line in lines:
        try:
            events.append(Event(**json.loads(line)))
        except (ValueError, TypeError):
            continue
    return events
