import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.patience import PATIENCE_S
from tests.workers.cluster import TOKEN, Cluster
from tests.workers.pools.trivial_actor import TrivialActor
from workers.pools.actor import WorkerActor
from workers.pools.pool import Exit, LearnerAccess, WorkerProcess
from workers.pools.ray_pool import ActorResources, RayPool

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RayPool]:
    before = signal.getsignal(signal.SIGTERM)
    pool = RayPool(
        address=None,
        learner=LearnerAccess("127.0.0.1:1", "token"),
        run_id="run",
        logs_dir=tmp_path_factory.mktemp("logs"),
        resources=ActorResources(num_cpus=0.1),
        environment={"UNSPOOL_TEST": "from the pool"},
        actor_class=TrivialActor,
    )
    assert signal.getsignal(signal.SIGTERM) is before
    yield pool
    pids = [process.pid for process in pool.describe().values() if process.pid]
    pool.close()
    assert not [pid for pid in pids if is_alive(pid)]


def is_alive(pid: int) -> bool:
    status = Path(f"/proc/{pid}/status")
    return status.exists() and "State:\tZ" not in status.read_text()


def placed(pool: RayPool, name: str) -> WorkerProcess:
    pool._ray.wait([pool._actors[name].location], timeout=PATIENCE_S)
    return pool.describe()[name]


def exit_of(pool: RayPool, name: str) -> Exit:
    pool._ray.wait([pool._actors[name].result], timeout=PATIENCE_S)
    ended = pool.poll()[name]
    assert ended is not None
    return ended


def test_an_actor_runs_with_the_pools_environment_and_answers_while_it_runs(pool):
    pool.start("w0")
    process = placed(pool, "w0")
    assert process.state == "running"
    assert process.pid != os.getpid()
    assert pool.stack("w0") == "from the pool"
    assert pool.poll()["w0"] is None


def test_an_exit_code_is_reported(pool):
    pool.start("exits")
    assert exit_of(pool, "exits").code == 75


def test_an_exception_is_a_crash_with_its_text(pool):
    pool.start("raises")
    ended = exit_of(pool, "raises")
    assert ended.code == 70
    assert "on purpose" in ended.cause


def test_a_killed_process_is_reported_and_can_be_started_again(pool):
    pool.start("w1")
    first = placed(pool, "w1").pid
    os.kill(first, signal.SIGKILL)
    ended = exit_of(pool, "w1")
    assert ended.code is None
    assert not ended.preempted
    pool.start("w1")
    assert placed(pool, "w1").pid != first


def test_kill_ends_an_actor(pool):
    pool.start("w2")
    placed(pool, "w2")
    pool.kill("w2")
    assert exit_of(pool, "w2").code is None


def test_an_actor_that_fits_nowhere_says_what_it_waits_for(pool, monkeypatch):
    monkeypatch.setattr(pool, "_resources", ActorResources(custom={"no_such_thing": 1}))
    pool.start("w3")
    waiting = pool.describe()["w3"]
    pool.kill("w3")
    assert waiting.pid == 0
    assert "no_such_thing: 1" in waiting.state


def test_a_worker_in_an_actor_makes_the_same_theta(pool, monkeypatch, tmp_path, expected):
    cluster = Cluster(tmp_path)
    monkeypatch.setattr(pool, "_actor_class", WorkerActor)
    monkeypatch.setattr(pool, "_arguments", (cluster.address, TOKEN, ""))
    pool.start("w4")
    assert cluster.finish()["theta_sha256"] == expected
    assert exit_of(pool, "w4").code == 0


def test_more_workers_than_the_machine_has_cpus_find_a_place_on_ray_of_our_own(pool, monkeypatch):
    monkeypatch.setattr(pool, "_resources", ActorResources(num_cpus=1.0))
    names = [f"many{number}" for number in range(int(pool._ray.cluster_resources()["CPU"]) + 1)]
    for name in names:
        pool.start(name)
    assert [placed(pool, name).state for name in names] == ["running"] * len(names)
    assert pool.most_workers() is None
    for name in names:
        pool.kill(name)


@pytest.mark.parametrize("needs", [{"num_gpus": 1.0}, {"custom": {"no_such_thing": 1.0}}], ids=str)
def test_a_worker_without_room_says_what_is_short(pool, monkeypatch, needs):
    monkeypatch.setattr(pool, "_resources", ActorResources(**needs))
    name = f"wants-{next(iter(needs))}"
    pool.start(name)
    lacking = pool.unplaced()
    pool.kill(name)
    assert "no machine of the cluster has more than 0" in lacking[name]
    assert pool.most_workers()[0] == 0
