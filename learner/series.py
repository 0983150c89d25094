"""The run's curves in memory: of bounded size however long the run, and evenly spread over it."""

import math
from collections.abc import Iterable
from typing import Any, Final

from learner.records import UpdateRecord

_POINTS: Final = 2000
_COLUMNS: Final = (
    "outer_step",
    "elapsed_s",
    "loss",
    "grad_norm",
    "update_norm",
    "staleness_mean",
    "wait_s",
    "apply_s",
)


class Series:
    """Every so many updates, and the newest. One thread appends, any other reads."""

    def __init__(self, records: Iterable[UpdateRecord] = ()) -> None:
        self._kept: tuple[UpdateRecord, ...] = ()
        self._newest: UpdateRecord | None = None
        self._stride = 1
        for record in records:
            self.append(record)

    def append(self, record: UpdateRecord) -> None:
        """Add an update; when there are too many, every second one goes."""
        self._newest = record
        if record.outer_step % self._stride:
            return
        kept = (*self._kept, record)
        if len(kept) > _POINTS:
            self._stride *= 2
            kept = tuple(old for old in kept if old.outer_step % self._stride == 0)
        self._kept = kept

    def columns(self) -> dict[str, list[Any]]:
        """Return the curves by name, numbers that are none as null."""
        kept, newest = self._kept, self._newest
        rows = kept if newest is None or (kept and kept[-1] is newest) else (*kept, newest)
        return {name: [_plain(getattr(row, name)) for row in rows] for name in _COLUMNS}


def _plain(value: float) -> float | None:
    return value if math.isfinite(value) else None
