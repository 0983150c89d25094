import pytest

from protos.exit_codes import CheckpointError, ExitCode, FailedError, InterruptedRunError, UnspoolError
from service.supervise.fleet import Fleet, RestartPolicy
from service.supervise.learner_restarts import LearnerRestarts
from service.supervise.supervisor import Supervisor
from tests.service.fakes import FakeAdmin, FakeLearner, FakePool
from tests.support.clock import Clock


class World:
    """A supervisor, and everything that it deals with."""

    def __init__(self, workers_desired: int = 1) -> None:
        self.clock, self.pool, self.admin = Clock(), FakePool(), FakeAdmin(workers_desired)
        self.learner = FakeLearner()
        self.moved_to = ""
        fleet = Fleet(self.pool, self.admin, self.clock, RestartPolicy(crashes=1))
        restarts = LearnerRestarts(self.learner, self.start_learner, self.clock)
        self.supervisor = Supervisor(restarts, self.admin, fleet, self.clock, lambda pid: self.moved_to)

    def start_learner(self) -> FakeLearner:
        self.learner = FakeLearner(self.learner.pid + 1)
        return self.learner

    def step(self, after_s: float = 0.0) -> bool:
        self.clock.now_s += after_s
        return self.supervisor.step()

    def outcome(self) -> UnspoolError:
        try:
            for _ in range(100):
                if self.step(100.0):
                    break
        except UnspoolError as error:
            return error
        raise AssertionError("the run continues, or ended successfully")


def test_workers_are_kept_to_the_number_that_the_learner_wants() -> None:
    world = World(2)
    assert not world.step()
    assert world.pool.running == ["w0", "w1"]


def test_a_supervisor_that_is_denied_access_reports_it_and_lets_the_run_continue() -> None:
    world = World()
    world.step()
    world.admin.refusal = "certificate has expired"
    assert not any(world.step(100.0) for _ in range(5))
    assert world.supervisor.problems == ["certificate has expired"]
    world.admin.refusal = ""
    world.step()
    assert (world.supervisor.problems, world.learner.was_killed) == ([], False)


def test_the_status_is_the_last_that_the_learner_gave() -> None:
    world = World()
    world.step()
    world.admin.is_reachable = False
    world.step()
    assert world.supervisor.status == world.admin.answer


def test_a_learner_that_runs_but_does_not_answer_is_named() -> None:
    world = World()
    world.admin.is_reachable = False
    world.step(5.0)
    assert world.supervisor.problems == []
    world.step(6.0)
    (problem,) = world.supervisor.problems
    assert "its process (pid 1) runs, and is killed after 120 s without an answer" in problem
    assert "learner.advertise" in problem
    world.admin.is_reachable = True
    world.step()
    assert world.supervisor.problems == []


def test_a_learner_that_does_not_answer_is_asked_to_stop_by_a_signal() -> None:
    world = World()
    world.admin.is_reachable = False
    world.supervisor.ask_to_stop(1)
    world.step(5.0)
    assert world.learner.terminations == 0  # it may only be busy
    world.step(6.0)
    world.step(1.0)
    assert world.learner.terminations == 1
    world.supervisor.ask_to_stop(2)
    world.step(1.0)
    assert (world.learner.terminations, world.learner.was_killed) == (2, False)


def test_no_worker_is_started_while_the_run_ends() -> None:
    world = World()
    world.admin.answer.state = "STOPPING"
    world.step()
    assert world.pool.running == []


def test_a_run_has_ended_when_learner_and_workers_have() -> None:
    world = World()
    world.step()
    world.learner.exit_code = 0
    assert not world.step()
    world.pool.end("w0", ExitCode.OK)
    assert world.step()
    assert world.pool.killed == []


def test_workers_that_do_not_leave_with_the_learner_are_killed() -> None:
    world = World()
    world.step()
    world.learner.exit_code = 0
    world.step()
    assert world.step(60.0)
    assert world.pool.killed == ["w0"]


def test_a_killed_learner_is_restarted_and_its_workers_are_left_alone() -> None:
    world = World()
    world.step()
    world.learner.exit_code = -9
    assert not world.step()
    assert "was killed by SIGKILL" in world.supervisor.problems[0]
    assert world.supervisor.status is not None
    assert world.supervisor.status.state == "DOWN"
    world.step(1.0)
    assert (world.learner.pid, world.pool.killed, world.pool.running) == (2, [], ["w0"])


def test_an_outer_step_clears_the_problems_of_the_learner() -> None:
    world = World()
    for outer_step in range(1, 10):
        world.learner.exit_code = -9
        world.step()
        world.admin.answer.state, world.admin.answer.outer_step = "RUNNING", outer_step
        world.step(1.0)
        assert world.supervisor.problems == []


def test_steps_that_a_restart_repeats_do_not_count_twice() -> None:
    world = World()
    world.admin.answer.outer_step = 7
    world.step()
    world.learner.exit_code = -9
    world.step()
    world.admin.answer.outer_step = 5
    world.step(1.0)
    assert "1 of at most 5 times" in world.supervisor.problems[0]


def test_a_learner_that_never_stays_up_interrupts_the_run() -> None:
    world = World()
    world.step()
    while world.learner.pid < 5:
        world.learner.exit_code = 70
        world.step(20.0)
    world.learner.exit_code = -11
    outcome = world.outcome()
    assert isinstance(outcome, InterruptedRunError)
    assert "killed by SIGSEGV (5 of at most 5 times" in str(outcome)
    assert world.pool.killed == ["w0"]


def test_the_next_start_waits_longer_after_each_failure() -> None:
    world = World()
    for delay_s in (1.0, 2.0, 4.0, 8.0):
        before = world.learner.pid
        world.learner.exit_code = -9
        world.step()
        world.step(0.9 * delay_s)
        assert world.learner.pid == before
        world.step(0.2 * delay_s)
        assert world.learner.pid == before + 1


@pytest.mark.parametrize("exit_code", [2, 65, 73, 74, 75, 76, 77])
def test_a_learner_with_an_error_that_no_restart_can_fix_is_not_restarted(exit_code: int) -> None:
    world = World(0)
    world.learner.exit_code = exit_code
    assert (world.outcome().exit_code, world.learner.pid) == (exit_code, 1)


def test_a_stop_while_the_learner_is_down_interrupts_the_run() -> None:
    world = World()
    world.step()
    world.learner.exit_code = -9
    world.step()
    world.supervisor.ask_to_stop(1)
    assert isinstance(world.outcome(), InterruptedRunError)
    assert (world.learner.pid, world.admin.stops, world.pool.running) == (1, [], [])


def test_a_stop_reaches_a_learner_that_was_started_again() -> None:
    world = World(0)
    world.learner.exit_code = -9
    world.step()
    world.step(1.0)
    world.supervisor.ask_to_stop(1)
    world.step()
    assert (world.learner.pid, world.admin.stops) == (2, [False])


def test_a_learner_that_is_killed_while_it_stops_is_not_restarted() -> None:
    world = World(0)
    world.admin.answer.state = "STOPPING"
    world.step()
    world.learner.exit_code = -9
    assert isinstance(world.outcome(), InterruptedRunError)
    assert world.learner.pid == 1


@pytest.mark.parametrize("is_reachable", [False, True])
def test_a_learner_that_listens_elsewhere_after_its_restart_is_stopped(is_reachable: bool) -> None:
    world = World()
    world.step()
    world.learner.exit_code = -9
    world.step()
    world.admin.is_reachable = is_reachable
    world.moved_to = "the learner listens at b, workers seek it at a"
    world.step(1.0)
    world.admin.is_reachable = True
    world.step()
    assert world.admin.stops == [True]
    world.learner.exit_code = 0
    assert "launch again" in str(world.outcome())


def test_the_learners_own_exit_code_and_last_log_line_are_passed_on() -> None:
    world = World()
    world.learner.exit_code = 74
    outcome = world.outcome()
    assert isinstance(outcome, CheckpointError)
    assert "the last line of its log" in str(outcome)


def test_a_stop_is_passed_on_once() -> None:
    world = World()
    world.supervisor.ask_to_stop(1)
    world.step()
    world.step()
    assert world.admin.stops == [False]


def test_a_second_stop_does_not_wait() -> None:
    world = World()
    world.supervisor.ask_to_stop(1)
    world.step()
    world.supervisor.ask_to_stop(2)
    world.step()
    assert world.admin.stops == [False, True]


def test_a_stop_that_did_not_reach_the_learner_is_repeated() -> None:
    world = World()
    world.admin.is_reachable = False
    world.supervisor.ask_to_stop(1)
    world.step()
    world.admin.is_reachable = True
    world.step()
    assert world.admin.stops == [False]


def test_a_learner_that_does_not_stop_is_asked_again_and_then_killed() -> None:
    world = World(0)
    world.supervisor.ask_to_stop(1)
    assert isinstance(world.outcome(), InterruptedRunError)
    assert world.admin.stops == [False, True]
    assert world.learner.was_killed


def test_a_silent_learner_is_killed_and_started_again() -> None:
    world = World()
    world.step()
    silent, world.admin.is_reachable = world.learner, False
    world.step(60.0)
    assert not silent.was_killed
    world.step(61.0)
    assert silent.was_killed
    world.step()
    assert "has not answered for 120 s and was killed" in world.supervisor.problems[0]
    world.step(1.0)
    assert (world.learner.pid, world.pool.killed) == (2, [])


def test_a_learner_that_is_only_silent_is_given_up() -> None:
    world = World()
    world.step()
    world.admin.is_reachable = False
    assert "has not answered" in str(world.outcome())
    assert world.learner.pid > 1


def test_a_run_whose_workers_only_crash_is_stopped_and_fails() -> None:
    world = World()
    world.step()
    world.pool.end("w0")
    world.step()
    world.step()
    assert world.admin.stops == [True]
    world.learner.exit_code = 0
    outcome = world.outcome()
    assert isinstance(outcome, FailedError)
    assert "w0" in str(outcome)


def test_a_run_continues_with_workers_that_somebody_else_has_started() -> None:
    world = World()
    world.step()
    world.pool.end("w0")
    world.admin.sees("elsewhere")
    world.step()
    world.step()
    assert world.admin.stops == []
