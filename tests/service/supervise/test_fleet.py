import pytest

from protos.exit_codes import ExitCode
from protos.unspool.v1.admin_pb2 import DrainRequest
from service.supervise.fleet import Fleet, RestartPolicy
from tests.service.fakes import FakeAdmin, FakePool
from tests.support.clock import Clock


class World:
    """A fleet, and everything that it deals with."""

    def __init__(self, workers_desired: int) -> None:
        self.clock, self.pool, self.admin = Clock(0.0), FakePool(), FakeAdmin(workers_desired)
        self.fleet = Fleet(self.pool, self.admin, self.clock, RestartPolicy(crashes=3))

    def reconcile(self, after_s: float = 0.0) -> None:
        self.clock.now_s += after_s
        self.fleet.reconcile(self.admin.answer)

    def scale(self, workers: int) -> None:
        self.admin.answer.workers_desired = workers
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
        world.reconcile(100.0)
    assert world.pool.running == ["w0"]


@pytest.mark.parametrize("code", [ExitCode.OK, ExitCode.EVICTED])
def test_an_end_that_another_party_has_asked_for_is_no_crash(code: ExitCode) -> None:
    world = World(1)
    world.reconcile()
    for _ in range(60):
        world.pool.end("w0", code, code.name.lower())
        world.reconcile()
        world.reconcile(1.0)
    assert world.pool.running == ["w0"]
    assert world.fleet.problems == []


def test_a_drained_worker_is_restarted_and_not_reported_as_preempted() -> None:
    world = World(1)
    world.reconcile()
    world.pool.end("w0", ExitCode.OK, "drained by an admin")
    world.reconcile()
    world.reconcile(1.0)
    assert world.pool.running == ["w0"]
    assert world.fleet.ends == {}


def test_a_machine_that_flaps_is_waited_for_longer_and_longer() -> None:
    world = World(1)
    world.reconcile()
    starts = []
    for _ in range(8):
        world.pool.preempt("w0")
        world.reconcile()
        before_s = world.clock.now_s
        while not world.pool.running:
            world.reconcile(0.5)
        starts.append(world.clock.now_s - before_s)
    assert starts == [1, 2, 4, 8, 16, 32, 60, 60]


def test_a_worker_whose_machines_never_last_is_given_up() -> None:
    world = World(1)
    world.fleet = Fleet(world.pool, world.admin, world.clock, RestartPolicy(preemptions=3))
    world.reconcile()
    for _ in range(3):
        world.pool.preempt("w0")
        world.reconcile()
        world.reconcile(100.0)
    assert world.pool.running == []
    assert "w0 was preempted 3 times" in world.fleet.problems[0]


def test_how_workers_ended_is_kept() -> None:
    world = World(2)
    world.reconcile()
    world.pool.end("w0", None, "a long story\nkilled by SIGSEGV\n")
    world.reconcile()
    world.reconcile(100.0)
    world.pool.preempt("w0")
    world.reconcile()
    assert world.fleet.ends == {"w0": (2, "preempted: the machine is gone")}


def test_being_scaled_down_costs_nothing() -> None:
    world = World(1)
    world.reconcile()
    for _ in range(5):
        world.scale(0)
        world.pool.end("w0", ExitCode.FAILED)
        world.scale(1)
    assert world.pool.running == ["w0"]
    assert world.fleet.ends == {}


def test_a_worker_on_a_machine_that_will_be_taken_away_is_drained_before() -> None:
    world = World(1)
    world.reconcile()
    world.pool.doomed = {"w0": 30.0}
    world.reconcile(5.0)
    world.reconcile(5.0)
    assert world.admin.requests == [DrainRequest(worker_name="w0", deadline_s=25.0, reason="preempted")]


def test_a_worker_that_has_left_a_doomed_machine_is_started_elsewhere_without_a_crash() -> None:
    world = World(1)
    world.reconcile()
    for _ in range(5):
        world.pool.doomed = {"w0": 30.0}
        world.reconcile(5.0)
        world.pool.doomed = {}
        world.pool.end("w0", None, "killed by SIGKILL")
        world.reconcile()
        world.reconcile(100.0)
    assert world.pool.running == ["w0"]
    assert world.fleet.ends["w0"][1].startswith("preempted")


def test_a_worker_that_is_stuck_is_killed_after_a_while_and_started_again() -> None:
    world = World(1)
    world.reconcile()
    world.admin.sees("w0", state="stuck")
    world.reconcile()
    world.reconcile(19.0)
    assert world.pool.killed == []
    world.reconcile(1.0)
    assert world.pool.killed == ["w0"]
    world.admin.sees()
    world.reconcile()
    world.reconcile(1.0)
    assert world.pool.running == ["w0"]
    assert "stuck for 20 s" in world.fleet.ends["w0"][1]


def test_a_worker_that_makes_progress_again_is_not_killed() -> None:
    world = World(1)
    world.reconcile()
    for state in ("stuck", "active", "stuck"):
        world.admin.sees("w0", state=state)
        world.reconcile(15.0)
    assert world.pool.killed == []


def test_workers_keep_off_machines_on_which_estimates_fail() -> None:
    world = World(1)
    world.admin.answer.excluded_hosts.append("bad")
    world.reconcile()
    assert world.pool.avoided == {"bad"}
    assert world.pool.running == ["w0"]


def test_where_every_machine_is_excluded_no_worker_is_started_and_a_problem_is_shown() -> None:
    world = World(1)
    world.pool.has_other_hosts = False
    world.admin.answer.excluded_hosts.append("here")
    world.reconcile()
    assert world.pool.running == []
    assert "estimates fail on here" in world.fleet.problems[0]
    del world.admin.answer.excluded_hosts[:]
    world.reconcile()
    assert world.pool.running == ["w0"]
    assert world.fleet.problems == []


def test_a_worker_that_is_refused_for_its_machine_is_started_again() -> None:
    world = World(1)
    world.reconcile()
    world.admin.answer.excluded_hosts.append("here")
    world.pool.end("w0", ExitCode.REFUSED)
    world.reconcile()
    world.reconcile(1.0)
    assert world.pool.running == ["w0"]


def test_one_worker_fewer_runs_after_two_have_run_out_of_memory() -> None:
    world = World(3)
    world.reconcile()
    for name in ("w0", "w2"):
        world.pool.run_out_of_memory(name)
        world.reconcile()
    world.reconcile(100.0)
    assert world.pool.running == ["w0", "w1"]
    assert "here: workers ran out of memory 2 times" in world.fleet.problems[0]


def test_a_new_number_is_tried_in_full_after_workers_ran_out_of_memory() -> None:
    world = World(2)
    world.reconcile()
    for name in ("w0", "w1"):
        world.pool.run_out_of_memory(name)
    world.reconcile()
    world.scale(3)
    world.reconcile(100.0)
    assert world.pool.running == ["w0", "w1", "w2"]
    assert world.fleet.problems == []


def test_the_last_worker_runs_on_however_often_it_runs_out_of_memory() -> None:
    world = World(1)
    world.reconcile()
    for _ in range(2):
        world.pool.run_out_of_memory("w0")
        world.reconcile()
        world.reconcile(100.0)
    assert world.pool.running == ["w0"]


def test_workers_of_an_earlier_supervisor_are_adopted_and_not_started() -> None:
    world = World(2)
    world.pool.orphans = {"w0"}
    world.reconcile()
    assert world.pool.started == ["w1"]
    assert world.pool.running == ["w0", "w1"]


def test_a_surplus_worker_of_an_earlier_supervisor_is_drained() -> None:
    world = World(1)
    world.admin.sees("w0", "w3")
    world.pool.orphans = {"w0", "w3"}
    world.reconcile()
    assert world.admin.drained == ["w3"]


def test_workers_that_others_have_started_are_left_alone() -> None:
    world = World(0)
    world.admin.sees("a0", "w7")
    world.pool.orphans = {"a0"}
    world.reconcile()
    assert world.admin.drained == []


def test_machines_are_asked_for_as_many_workers_as_are_wanted() -> None:
    world = World(2)
    world.reconcile()
    world.scale(0)
    assert world.pool.expected == [2, 0]


@pytest.mark.parametrize("workers", [0, 3])
def test_kill_ends_every_worker(workers: int) -> None:
    world = World(workers)
    world.reconcile()
    world.fleet.kill()
    world.fleet.reap()
    assert world.fleet.running == []


def test_workers_without_room_are_named_with_what_is_short_and_since_when() -> None:
    world = World(3)
    world.fleet = Fleet(world.pool, world.admin, world.clock, wall_clock=lambda: world.clock.now_s)
    world.reconcile(3600.0)
    world.pool.without_room = dict.fromkeys(("w1", "w2"), "GPU: 1 wanted, 0 of 1 in the cluster free")
    world.reconcile(10.0)
    assert world.fleet.problems == []
    world.reconcile(30.0)
    (problem,) = world.fleet.problems
    assert problem.startswith("no room for w1, w2 since 01:00:10 UTC: GPU: 1 wanted, 0 of 1")
    states = {one.name: (one.state, one.age_s) for one in world.fleet.absent({"w0"})}
    expected = ("no room: GPU: 1 wanted, 0 of 1 in the cluster free", 30.0)
    assert states == {"w1": expected, "w2": expected}
    world.pool.without_room = {}
    world.reconcile(10.0)
    assert world.fleet.problems == []


def test_a_worker_without_a_session_is_listed_with_the_end_of_its_process() -> None:
    world = World(2)
    world.reconcile()
    world.pool.end("w1", ExitCode.FAILED, "RuntimeError: the licence has expired (my_task.py:9 in loss)")
    world.reconcile()
    (absent,) = world.fleet.absent({"w0"})
    assert (absent.name, absent.state) == (
        "w1",
        "ended, restarts in 1 s; crashed: RuntimeError: the licence has expired (my_task.py:9 in loss)",
    )
    world.crash("w1", times=3)
    assert world.fleet.absent({"w0"})[0].state.startswith("not restarted; crashed: ")
