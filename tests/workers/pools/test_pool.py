import pytest

from protos.exit_codes import ExitCode
from workers.pools.pool import Exit, LearnerAccess


@pytest.mark.parametrize(
    ("code", "cause"),
    [
        (70, "exit code 70: an internal error, a crash, or workers that all crash"),
        (0, "exit code 0"),
        (3, "exit code 3"),
    ],
)
def test_a_process_without_a_note_is_described_by_its_exit_code(code: int, cause: str) -> None:
    assert Exit.with_note(code, "") == Exit(code, cause)


@pytest.mark.parametrize(
    ("reason", "preempted"), [("SIGTERM", True), ("drained by an admin", False), ("scaled down", False)]
)
def test_only_a_drain_by_a_signal_is_a_preemption(reason: str, preempted: bool) -> None:
    ended = Exit.with_note(ExitCode.OK, f"drained: {reason}")
    assert (ended.preempted, ended.cause) == (preempted, reason)


def test_a_crash_that_names_a_signal_is_no_preemption() -> None:
    ended = Exit.with_note(ExitCode.FAILED, "SIGTERM")
    assert (ended.code, ended.preempted) == (70, False)


def test_a_learners_token_is_not_shown() -> None:
    assert "secret" not in repr(LearnerAccess("127.0.0.1:1", "secret"))
