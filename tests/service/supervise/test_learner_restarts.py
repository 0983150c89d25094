import pytest

from service.supervise.learner_restarts import LearnerRestarts, cause_of
from service.supervise.restart_budget import RestartPolicy
from tests.service.fakes import FakeLearner
from tests.support.clock import Clock

POLICY = RestartPolicy(crashes=3, window_s=100.0)


class Restarts(LearnerRestarts):
    """Restarts whose processes are fakes; `started` has the processes after the first."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.started: list[FakeLearner] = []
        super().__init__(FakeLearner(), self.start, self.clock, POLICY)

    def start(self) -> FakeLearner:
        self.started.append(FakeLearner(len(self.started) + 2))
        return self.started[-1]

    def fail(self, exit_code: int = -9, restarted_after_s: float = 10.0) -> int | None:
        """End the process; return the exit code of `poll`, after which the next process may have started."""
        self.process.exit_code = exit_code
        ended = self.poll()
        self.clock.advance(restarted_after_s)
        self.poll()
        return ended


@pytest.fixture
def restarts() -> Restarts:
    return Restarts()


def test_a_running_learner_is_not_restarted(restarts: Restarts) -> None:
    assert restarts.poll() is None
    assert (restarts.started, restarts.problem, restarts.is_down) == ([], "", False)


def test_a_killed_learner_is_restarted_after_the_delay(restarts: Restarts) -> None:
    restarts.process.exit_code = -9
    assert restarts.poll() is None
    assert restarts.is_down
    restarts.clock.advance(0.9)
    assert (restarts.poll(), restarts.started) == (None, [])
    restarts.clock.advance(0.1)
    assert restarts.poll() is None
    assert (restarts.process.pid, restarts.is_down) == (2, False)


@pytest.mark.parametrize("exit_code", [0, 2, 65, 66, 67, 73, 74, 75, 76, 77])
def test_an_exit_code_that_no_restart_can_fix_is_returned(restarts: Restarts, exit_code: int) -> None:
    assert restarts.fail(exit_code) == exit_code
    assert restarts.started == []


@pytest.mark.parametrize("exit_code", [1, 70, 71, 72, -11])
def test_a_failure_that_a_restart_can_fix_is_followed_by_one(restarts: Restarts, exit_code: int) -> None:
    assert restarts.fail(exit_code) is None
    assert len(restarts.started) == 1


def test_too_many_failures_without_an_outer_step_end_the_restarts(restarts: Restarts) -> None:
    assert [restarts.fail() for _ in range(3)] == [None, None, -9]
    assert restarts.has_given_up_restarting
    assert restarts.problem == (
        "the learner was killed by SIGKILL (3 of at most 3 times without an outer step between)"
    )


def test_an_outer_step_clears_the_failures(restarts: Restarts) -> None:
    for outer_step in range(1, 6):
        assert restarts.fail() is None
        restarts.moved(outer_step)
        assert restarts.problem == ""


def test_an_outer_step_that_is_repeated_after_a_restart_clears_nothing(restarts: Restarts) -> None:
    restarts.moved(7)
    restarts.fail()
    restarts.moved(7)
    assert "(1 of at most 3 times" in restarts.problem


def test_failures_outside_the_window_do_not_count(restarts: Restarts) -> None:
    assert [restarts.fail(restarted_after_s=100.0) for _ in range(5)] == 5 * [None]


def test_a_restart_that_is_due_can_be_cancelled(restarts: Restarts) -> None:
    restarts.process.exit_code = -9
    restarts.poll()
    restarts.stop_restarting()
    restarts.clock.advance(100.0)
    assert (restarts.poll(), restarts.started) == (-9, [])
    assert not restarts.problem.endswith("it is restarted")


def test_the_reason_of_a_kill_replaces_the_signal_once(restarts: Restarts) -> None:
    restarts.kill("has not answered")
    restarts.poll()
    assert "the learner has not answered (1 of at most 3 times" in restarts.problem
    restarts.clock.advance(10.0)
    restarts.poll()
    restarts.fail(70)
    assert "the learner ended with exit code 70 (2 of at most 3 times" in restarts.problem


def test_end_ends_the_process_for_good(restarts: Restarts) -> None:
    restarts.end()
    assert (restarts.poll(), restarts.started) == (0, [])


@pytest.mark.parametrize(
    ("exit_code", "cause"), [(-11, "was killed by SIGSEGV"), (70, "ended with exit code 70")]
)
def test_a_cause_names_the_signal_or_the_exit_code(exit_code: int, cause: str) -> None:
    assert cause_of(exit_code) == cause
