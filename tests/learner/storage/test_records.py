"""The table of updates, the event files and the curves."""

import csv
import struct
from pathlib import Path

import pytest
from tensorboardX.record_writer import RecordWriter

from learner.storage.records import Records, Series, UpdateRecord, read_records


def record(outer_step: int, loss: float = 0.5) -> UpdateRecord:
    return UpdateRecord(
        outer_step=outer_step,
        unix_time_s=1e9 + outer_step,
        elapsed_s=float(outer_step),
        loss=loss,
        grad_norm=1.0,
        update_norm=0.1,
        staleness_mean=0.0,
        staleness_max=0,
        contributions=3,
        weight=30.0,
        inner_steps=15,
        wait_s=0.01,
        apply_s=0.001,
    )


def written(directory: Path, *steps: int, resume_at: int = 0) -> Path:
    records = Records(directory, resume_at)
    for step in steps:
        records.write(record(step))
    records.close()
    return directory / "outer.csv"


def test_each_update_is_a_row_under_a_heading(tmp_path: Path) -> None:
    with written(tmp_path, 1, 2).open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["outer_step"] for row in rows] == ["1", "2"]
    assert tuple(rows[0]) == UpdateRecord._fields


def test_rows_come_back_as_they_were(tmp_path: Path) -> None:
    assert read_records(written(tmp_path, 1, 2)) == [record(1), record(2)]


def test_rows_that_a_crash_undid_are_removed_on_resume(tmp_path: Path) -> None:
    written(tmp_path, 1, 2, 3)
    path = written(tmp_path, 2, resume_at=1)
    assert [row.outer_step for row in read_records(path)] == [1, 2]


def test_a_row_that_a_crash_cut_off_is_left_out(tmp_path: Path) -> None:
    path = written(tmp_path, 1, 2)
    path.write_text(path.read_text()[:-30])
    assert [row.outer_step for row in read_records(path)] == [1]


def test_a_loss_that_is_no_number_is_written_as_such(tmp_path: Path) -> None:
    records = Records(tmp_path, 0)
    records.write(record(1, loss=float("nan")))
    records.close()
    assert read_records(tmp_path / "outer.csv")[0].loss != 0.5


def test_event_files_are_written_for_tensorboard(tmp_path: Path) -> None:
    written(tmp_path, 1)
    (events,) = tmp_path.glob("events.out.tfevents.*")
    assert b"outer/loss" in events.read_bytes()


def test_event_files_are_framed_as_tensorboard_expects(tmp_path: Path) -> None:
    written(tmp_path, 1, resume_at=0)
    (events,) = tmp_path.glob("events.out.tfevents.*")
    data, messages = events.read_bytes(), []
    while data:
        (length,) = struct.unpack_from("<Q", data)
        messages.append(data[12 : 12 + length])
        data = data[16 + length :]
    again = RecordWriter(str(tmp_path / "again"))
    for message in messages:
        again.write(message)
    again.close()
    assert (len(messages), events.read_bytes()) == (3, (tmp_path / "again").read_bytes())


def test_curves_are_columns_with_null_for_what_is_no_number() -> None:
    columns = Series([record(1), record(2, loss=float("inf"))]).columns()
    assert columns["outer_step"] == [1, 2]
    assert columns["loss"] == [0.5, None]


@pytest.mark.parametrize("updates", [10, 1999, 2001, 50_000])
def test_curves_stay_small_and_reach_from_the_beginning_to_now(updates: int) -> None:
    steps = Series(record(step) for step in range(1, updates + 1)).columns()["outer_step"]
    assert len(steps) <= 2001
    assert steps[0] <= updates // 100 + 1
    assert steps[-1] == updates
    assert steps == sorted(set(steps))


def test_a_table_of_an_earlier_version_is_continued(tmp_path: Path) -> None:
    records = Records(tmp_path, outer_step=0)
    records.write(record(1))
    records.close()
    path = tmp_path / "outer.csv"
    path.write_text("".join(line.rpartition(",")[0] + "\n" for line in path.read_text().splitlines()))
    assert "diverged_tasks" not in path.read_text()
    records = Records(tmp_path, outer_step=1)
    records.write(record(2)._replace(diverged_tasks=3))
    records.close()
    assert [(row.outer_step, row.diverged_tasks) for row in read_records(path)] == [(1, 0), (2, 3)]
