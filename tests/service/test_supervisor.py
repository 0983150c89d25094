from service.exits import ExitCode, FailedError, InterruptedRunError, PortInUseError, ServiceError
from service.fleet import Fleet, RestartPolicy
from service.supervisor import Supervisor
from tests.service.fakes import Clock, FakeAdmin, FakeLearner, FakePool


class World:
    """A supervisor, and everything that it deals with."""

    def __init__(self, workers_desired: int = 1) -> None:
        self.clock, self.pool, self.admin = Clock(), FakePool(), FakeAdmin(workers_desired)
        self.learner = FakeLearner()
        fleet = Fleet(self.pool, self.admin, self.clock, RestartPolicy(crashes=1))
        self.supervisor = Supervisor(self.learner, self.admin, fleet, self.clock)

    def step(self, after_s: float = 0.0) -> bool:
        self.clock.now_s += after_s
        return self.supervisor.step()

    def outcome(self) -> ServiceError:
        try:
            while not self.step(100.0):
                pass
        except ServiceError as error:
            return error
        raise AssertionError("the run ended as it should")


def test_workers_are_kept_to_the_number_that_the_learner_wants() -> None:
    world = World(2)
    assert not world.step()
    assert world.pool.running == ["w0", "w1"]


def test_a_supervisor_that_is_refused_says_so_and_lets_the_run_go_on() -> None:
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


def test_the_death_of_the_learner_ends_the_run_for_now() -> None:
    world = World()
    world.step()
    world.learner.exit_code = -9
    outcome = world.outcome()
    assert isinstance(outcome, InterruptedRunError)
    assert "SIGKILL" in str(outcome)
    assert world.pool.killed == ["w0"]


def test_the_learners_own_exit_code_and_last_words_are_passed_on() -> None:
    world = World()
    world.learner.exit_code = 71
    outcome = world.outcome()
    assert isinstance(outcome, PortInUseError)
    assert "its last words" in str(outcome)


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


def test_a_stop_that_the_learner_did_not_hear_is_repeated() -> None:
    world = World()
    world.admin.is_reachable = False
    world.supervisor.ask_to_stop(1)
    world.step()
    world.admin.is_reachable = True
    world.step()
    assert world.admin.stops == [False]


def test_a_learner_that_does_not_stop_is_pressed_and_then_killed() -> None:
    world = World(0)
    world.supervisor.ask_to_stop(1)
    assert isinstance(world.outcome(), InterruptedRunError)
    assert world.admin.stops == [False, True]
    assert world.learner.was_killed


def test_a_silent_learner_is_killed_in_the_end() -> None:
    world = World()
    world.step()
    world.admin.is_reachable = False
    world.step(60.0)
    assert not world.learner.was_killed
    assert "has not answered" in str(world.outcome())
    assert world.learner.was_killed


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


def test_a_run_goes_on_with_workers_that_somebody_else_has_started() -> None:
    world = World()
    world.step()
    world.pool.end("w0")
    world.admin.sees("elsewhere")
    world.step()
    world.step()
    assert world.admin.stops == []
