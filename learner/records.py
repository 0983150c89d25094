"""One row for each outer update, as a table that pandas reads and as TensorBoard event files."""

import csv
import io
import math
from collections import deque
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from learner.board import Board
from learner.files import AppendFile, write_durably

_BOARD_INTERVAL_S: Final = 0.2  # a point in an event file costs as much as the update; the table has them all
_WAITING: Final = 20_000


class UpdateRecord(NamedTuple):
    """What an outer update did, and what it cost.

    Attributes:
        outer_step: theta's version after it.
        unix_time_s: when.
        elapsed_s: of the run, over all lives of the learner.
        loss: weighted mean loss; NaN where nothing had weight.
        grad_norm: of the mean gradient.
        update_norm: of theta's movement.
        staleness_mean: versions that the gradients were behind.
        staleness_max: the most of them.
        contributions: gradients in it.
        weight: their sum of weights.
        inner_steps: inner training steps behind them.
        wait_s: from the update before until the batch was complete.
        apply_s: from then until the new theta was announced.
    """

    outer_step: int
    unix_time_s: float
    elapsed_s: float
    loss: float
    grad_norm: float
    update_norm: float
    staleness_mean: float
    staleness_max: int
    contributions: int
    weight: float
    inner_steps: int
    wait_s: float
    apply_s: float


class Records:
    """The table `outer.csv` and the event files of one directory. One thread uses it.

    Rows that the disk refused wait for the next attempt, up to a bound: a run that survives a full disk has a
    table without a gap.
    """

    def __init__(self, directory: Path, outer_step: int) -> None:
        """Continue after `outer_step`: later rows belong to updates that a crash undid, and are removed."""
        path = directory / "outer.csv"
        _truncate(path, outer_step)
        self._table = AppendFile(path)
        self._waiting: deque[UpdateRecord] = deque(maxlen=_WAITING)
        self._board_time_s = -math.inf
        self._board = Board(directory, outer_step + 1)

    def write(self, record: UpdateRecord) -> None:
        """Append an update, after those that wait.

        Raises:
            OSError: the disk refused; the table has whole rows all the same.
        """
        self._waiting.append(record)
        self._flush()
        if record.unix_time_s - self._board_time_s >= _BOARD_INTERVAL_S:
            self._board_time_s = record.unix_time_s
            self._plot(record)

    def _plot(self, record: UpdateRecord) -> None:
        figures = zip(record._fields[2:], record[2:], strict=True)
        finite = {f"outer/{name}": value for name, value in figures if math.isfinite(value)}
        self._board.add(finite, record.outer_step, record.unix_time_s)

    def close(self) -> None:
        """Close the files.

        Raises:
            OSError: the disk refused rows that waited for it.
        """
        try:
            self._flush()
        finally:
            self._table.close()
            self._board.close()

    def _flush(self) -> None:
        self._table.append(_rows(self._waiting))
        self._waiting.clear()


def read_records(path: Path) -> list[UpdateRecord]:
    """Return the rows of a table; one that a crash cut off is left out."""
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))[1:]
    records = []
    for row in rows:
        try:
            records.append(_parse(row))
        except (ValueError, TypeError):
            continue
    return records


def _parse(row: list[str]) -> UpdateRecord:
    types = UpdateRecord.__annotations__
    return UpdateRecord(**{name: types[name](text) for name, text in zip(types, row, strict=True)})


def _truncate(path: Path, outer_step: int) -> None:
    """Rewrite the table up to `outer_step`; what a crash undid is removed, and the heading is there."""
    kept = [record for record in read_records(path) if record.outer_step <= outer_step]
    write_durably(path, _rows([UpdateRecord._fields, *kept]))


def _rows(rows: Iterable[Sequence[object]]) -> bytes:
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    return text.getvalue().encode()
