import pytest

from service.fleet import Fleet, RestartPolicy
from tests.service.fakes import Clock, FakeAdmin, FakePool
from workers.exits import ExitCode


class World:
    """A fleet, and everything that it deals with."""

    def __init__(self, workers_desired: int) -> None:
        self.clock, self.pool, self.admin = Clock(), FakePool(), FakeAdmin(workers_desired)
        self.fleet = Fleet(self.pool, self.admin, self.clock, RestartPolicy(crashes=3))

    def reconcile(self, after_s: float = 0.0) -> None:
        self.clock.now_s += after_s
        self.fleet.reconcile(self.admin.answer)

    def scale(self, workers: int) -> None:
        self.admin.scale(workers)
        self.reconcile()

    def crash(self, name: str, times: int, restarted_after_s: float = 100.0) -> None:
        for _ in range(times):
            self.pool.end(name)
            self.reconcile()
            self.reconcile(restarted_after_s)


def test_the_wanted_number_of_workers_is_started_once() -> None:
    world = World(2)
    world.reconcile()
    world.reconcile()
    assert world.pool.started == ["w0", "w1"]


def test_more_wanted_workers_are_started() -> None:
    world = World(1)
    world.reconcile()
    world.scale(3)
    assert world.pool.running == ["w0", "w1", "w2"]


def test_surplus_workers_are_drained_the_highest_name_first_and_once() -> None:
    world = World(3)
    world.reconcile()
    world.scale(1)
    world.reconcile()
    assert world.admin.drained == ["w2", "w1"]
    assert world.pool.killed == []


def test_a_drained_worker_stays_down() -> None:
    world = World(2)
    world.reconcile()
    world.scale(1)
    world.pool.end("w1", ExitCode.OK)
    world.reconcile(1000)
    assert world.pool.running == ["w0"]


def test_a_worker_that_is_wanted_again_waits_for_its_drain_to_end() -> None:
    world = World(2)
    world.reconcile()
    world.scale(1)
    world.scale(2)
    assert world.pool.started == ["w0", "w1"]
    world.pool.end("w1", ExitCode.OK)
    world.reconcile()
    assert world.pool.started == ["w0", "w1", "w1"]


def test_a_worker_that_does_not_drain_is_killed() -> None:
    world = World(1)
    world.reconcile()
    world.scale(0)
    world.reconcile(1000)
    assert world.pool.killed == ["w0"]


def test_a_worker_that_has_not_joined_yet_is_asked_again_to_drain() -> None:
    world = World(1)
    world.admin.joined = set()
    world.reconcile()
    world.scale(0)
    world.admin.joined = {"w0"}
    world.reconcile(1)
    assert world.admin.drained == ["w0"]


def test_a_crashed_worker_is_restarted_after_a_while() -> None:
    world = World(1)
    world.reconcile()
    world.pool.end("w0")
    world.reconcile()
    assert world.pool.running == []
    world.reconcile(1.0)
    assert world.pool.running == ["w0"]


def test_each_further_crash_is_waited_for_twice_as_long() -> None:
    world = World(1)
    world.reconcile()
    world.crash("w0", times=1)
    world.pool.end("w0")
    world.reconcile()
    world.reconcile(1.9)
    assert world.pool.running == []
    world.reconcile(0.2)
    assert world.pool.running == ["w0"]


def test_a_worker_that_only_crashes_is_given_up() -> None:
    world = World(2)
    world.reconcile()
    world.crash("w0", times=3)
    assert world.pool.running == ["w1"]
    assert "w0 ended 3 times" in world.fleet.problems[0]
    assert not world.fleet.has_given_up


def test_crashes_after_an_estimate_are_not_held_against_a_worker() -> None:
    world = World(1)
    world.reconcile()
    for _ in range(5):
        world.admin.sees("w0", estimates=1)
        world.reconcile()
        world.crash("w0", times=1)
    assert world.pool.running == ["w0"]


def test_crashes_of_long_ago_are_forgotten() -> None:
    world = World(1)
    world.reconcile()
    world.crash("w0", times=10, restarted_after_s=400.0)
    assert world.pool.running == ["w0"]


def test_a_refused_worker_is_not_started_again() -> None:
    world = World(1)
    world.reconcile()
    world.pool.end("w0", ExitCode.REFUSED)
    world.reconcile(1000)
    assert "refused" in world.fleet.problems[0]
    assert world.fleet.has_given_up


def test_the_loss_of_a_machine_is_no_crash() -> None:
    world = World(1)
    world.reconcile()
    for _ in range(5):
        world.pool.preempt("w0")
        world.reconcile()
    assert world.pool.running == ["w0"]


@pytest.mark.parametrize("workers", [0, 3])
def test_kill_ends_every_worker(workers: int) -> None:
    world = World(workers)
    world.reconcile()
    world.fleet.kill()
    world.fleet.reap()
    assert world.fleet.running == []
