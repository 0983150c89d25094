"""The note in which a worker process gives the reason of its end."""

from pathlib import Path

import pytest

from protos.exit_codes import ExitCode
from workers.exits import EXIT_NOTE, End, clear_note, note_from_environment, read_note, write_note


def crashed() -> End:
    try:
        raise RuntimeError("the licence has expired")
    except RuntimeError as error:
        error.add_note("a note below the traceback")
        return End.crashed(error)


def test_a_crash_is_noted_as_what_was_raised_and_where(tmp_path: Path) -> None:
    write_note(tmp_path / "note", crashed())
    note = read_note(tmp_path / "note")
    assert note == "RuntimeError: the licence has expired (test_exits.py:13 in crashed)"


def test_a_process_that_leaves_no_note_has_an_empty_one(tmp_path: Path) -> None:
    assert read_note(tmp_path / "note") == ""


def test_a_note_is_of_the_process_that_was_started_last(tmp_path: Path) -> None:
    write_note(tmp_path / "note", crashed())
    clear_note(tmp_path / "note")
    assert read_note(tmp_path / "note") == ""


def test_a_place_for_the_note_is_not_handed_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(EXIT_NOTE, str(tmp_path / "note"))
    assert note_from_environment() == tmp_path / "note"
    assert note_from_environment() is None


def test_a_note_that_cannot_be_written_changes_nothing(tmp_path: Path) -> None:
    write_note(tmp_path / "no" / "such" / "folder", crashed())


def test_a_summary_is_one_line_of_bounded_length() -> None:
    end = End(ExitCode.REFUSED, "the learner\n   denied it: " + "x" * 1000)
    assert end.summary.startswith("the learner denied it: x")
    assert len(end.summary) == 600
