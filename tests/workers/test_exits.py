"""What a worker process says of its end, and what its pool makes of it."""

from pathlib import Path

import pytest

from protos.exit_codes import ExitCode
from workers.exits import EXIT_NOTE, End, clear_note, note_from_environment, read_note, write_note
from workers.pools.pool import Exit


def crashed() -> End:
    try:
        raise RuntimeError("the licence has expired")
    except RuntimeError as error:
        error.add_note("a note below the traceback")
        return End.crashed(error)


def test_a_crash_is_noted_as_what_was_raised_and_where(tmp_path: Path) -> None:
    write_note(tmp_path / "note", crashed())
    ended = Exit.with_note(ExitCode.FAILED, read_note(tmp_path / "note"))
    assert ended.cause == "RuntimeError: the licence has expired (test_exits.py:14 in crashed)"


def test_a_process_that_leaves_no_note_is_known_by_its_exit_code(tmp_path: Path) -> None:
    assert Exit.with_note(ExitCode.FAILED, read_note(tmp_path / "note")) == Exit(
        70, "exit code 70: an internal error, a crash, or workers that only crash"
    )


def test_a_note_is_of_the_process_that_was_started_last(tmp_path: Path) -> None:
    write_note(tmp_path / "note", crashed())
    clear_note(tmp_path / "note")
    assert read_note(tmp_path / "note") == ""


@pytest.mark.parametrize(
    ("reason", "preempted"), [("SIGTERM", True), ("drained by an operator", False), ("scaled down", False)]
)
def test_only_who_was_sent_a_signal_was_preempted(reason: str, preempted: bool) -> None:
    ended = Exit.with_note(ExitCode.OK, End(ExitCode.OK, f"drained: {reason}").summary)
    assert (ended.preempted, ended.cause) == (preempted, reason)


def test_a_place_for_the_note_is_not_handed_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(EXIT_NOTE, str(tmp_path / "note"))
    assert note_from_environment() == tmp_path / "note"
    assert note_from_environment() is None


def test_a_note_that_cannot_be_written_changes_nothing(tmp_path: Path) -> None:
    write_note(tmp_path / "no" / "such" / "folder", crashed())
