"""Update records as a CSV table, as TensorBoard event files, and as curves for the status page."""

import csv
import io
import math
from collections import deque
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

from learner.storage.files import AppendFile, write_durably
from learner.storage.tensorboard import TensorBoardFile
from learner.storage.update_record import UpdateRecord

_PLOT_INTERVAL_S: Final = 0.2  # writing a point may cost as much as the update; the table has every update
_WAITING: Final = 20_000
_POINTS: Final = 2000  # the maximum length of the curves on the status page
_COLUMNS: Final = (
    "outer_step",
    "elapsed_s",
    "loss",
    "grad_norm",
    "update_norm",
    "staleness_mean",
    "wait_s",
    "apply_s",
    "diverged_tasks",
)


class Records:
    """The table `outer.csv` and the event files of one directory. Not thread-safe.

    Up to `_WAITING` rows that could not be written are retried with the next one, so that the table of a run
    that survives a full disk has no gap.
    """

    def __init__(self, directory: Path, outer_step: int) -> None:
        """Continue after `outer_step`; remove later rows, which belong to updates lost in a crash."""
        path = directory / "outer.csv"
        _truncate(path, outer_step)
        self._table = AppendFile(path)
        self._waiting: deque[UpdateRecord] = deque(maxlen=_WAITING)
        self._plotted_s = -math.inf
        self._tensorboard = TensorBoardFile(directory, outer_step + 1)

    def write(self, record: UpdateRecord) -> None:
        """Append an update, after the rows that wait.

        Raises:
            OSError: the rows could not be written; the table contains only complete rows.
        """
        self._waiting.append(record)
        self._flush()
        if record.unix_time_s - self._plotted_s >= _PLOT_INTERVAL_S:
            self._plotted_s = record.unix_time_s
            self._plot(record)

    def _plot(self, record: UpdateRecord) -> None:
        figures = zip(record._fields[2:], record[2:], strict=True)
        finite = {f"outer/{name}": value for name, value in figures if math.isfinite(value)}
        self._tensorboard.add(finite, record.outer_step, record.unix_time_s)

    def close(self) -> None:
        """Close the files.

        Raises:
            OSError: the waiting rows could not be written.
        """
        try:
            self._flush()
        finally:
            self._table.close()
            self._tensorboard.close()

    def _flush(self) -> None:
        self._table.append(_rows(self._waiting))
        self._waiting.clear()


class Series:
    """The run's curves: every n-th update, and the newest. One thread appends; any thread may read."""

    def __init__(self, records: Iterable[UpdateRecord] = ()) -> None:
        self._kept: tuple[UpdateRecord, ...] = ()
        self._newest: UpdateRecord | None = None
        self._stride = 1
        for record in records:
            self.append(record)

    def append(self, record: UpdateRecord) -> None:
        """Add an update; when there are more than `_POINTS`, drop every second one."""
        self._newest = record
        if record.outer_step % self._stride:
            return
        kept = (*self._kept, record)
        if len(kept) > _POINTS:
            self._stride *= 2
            kept = tuple(old for old in kept if old.outer_step % self._stride == 0)
        self._kept = kept

    def columns(self) -> dict[str, list[Any]]:
        """Return the curves by name, with None for non-finite values."""
        kept, newest = self._kept, self._newest
        rows = kept if newest is None or (kept and kept[-1] is newest) else (*kept, newest)
        return {name: [_plain(getattr(row, name)) for row in rows] for name in _COLUMNS}


def read_records(path: Path) -> list[UpdateRecord]:
    """Return the rows of a table, without rows truncated by a crash."""
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        heading, *rows = list(csv.reader(file)) or [[]]
    records = []
    for row in rows:
        try:
            records.append(_parse(heading, row))
        except (KeyError, TypeError, ValueError):
            continue
    return records


def _parse(heading: list[str], row: list[str]) -> UpdateRecord:
    """Return a row as a record. Tables of earlier versions lack the columns with a default."""
    types = UpdateRecord.__annotations__
    return UpdateRecord(**{name: types[name](text) for name, text in zip(heading, row, strict=True)})


def _truncate(path: Path, outer_step: int) -> None:
    """Rewrite the table up to `outer_step`, with a heading, and without updates lost in a crash."""
    kept = [record for record in read_records(path) if record.outer_step <= outer_step]
    write_durably(path, _rows([UpdateRecord._fields, *kept]))


def _rows(rows: Iterable[Sequence[object]]) -> bytes:
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    return text.getvalue().encode()


def _plain(value: float) -> float | None:
    return value if math.isfinite(value) else None
