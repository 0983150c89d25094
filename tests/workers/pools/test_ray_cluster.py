"""The Ray pool on a cluster of several nodes that was there before it, and outlives it."""

import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.patience import PATIENCE_S
from tests.workers.pools.trivial_actor import TrivialActor
from workers.pools.pool import Exit, LearnerAccess
from workers.pools.ray_pool import ActorResources, RayPool

pytestmark = pytest.mark.ray

STORE_BYTES = 80 * 2**20
DIES_AS_SUPERVISOR = """
import os, sys
from pathlib import Path
from tests.workers.pools.test_ray_cluster import pool_at
pool = pool_at(sys.argv[1], Path(sys.argv[2]))
for name in sys.argv[3:]:
    pool.start(name)
    print(name, pool._ray.get(pool._actors[name].location)[1], flush=True)
os._exit(9)
"""


def pool_at(address: str, logs_dir: Path, learner: str = "127.0.0.1:1") -> RayPool:
    return RayPool(
        address=address,
        learner=LearnerAccess(learner, "token"),
        run_id="run",
        logs_dir=logs_dir,
        resources=ActorResources(num_cpus=0.1),
        environment={"UNSPOOL_TEST": "from the pool"},
        actor_class=TrivialActor,
    )


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A head that takes no actors, and two nodes."""
    from ray.cluster_utils import Cluster

    head = {"num_cpus": 0, "include_dashboard": False, "object_store_memory": STORE_BYTES}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    for _ in range(2):
        cluster.add_node(num_cpus=2, object_store_memory=STORE_BYTES)
    yield cluster
    cluster.shutdown()


@pytest.fixture(scope="module")
def pool(cluster: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RayPool]:
    pool = pool_at(cluster.address, tmp_path_factory.mktemp("logs"))
    stray = orphaned(cluster, tmp_path_factory.mktemp("logs"), "stray")["stray"]
    yield pool
    pids = [process.pid for process in pool.describe().values() if process.pid]
    pool.close()
    assert not [pid for pid in [*pids, stray] if is_alive(pid)]


def orphaned(cluster: Any, logs_dir: Path, *names: str) -> dict[str, int]:
    """Let another supervisor start workers and die; return their process numbers."""
    command = [sys.executable, "-c", DIES_AS_SUPERVISOR, cluster.address, str(logs_dir), *names]
    root = Path(__file__).parents[3]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=root, timeout=PATIENCE_S)
    assert done.returncode == 9, done.stderr
    return {name: int(pid) for name, pid in map(str.split, done.stdout.splitlines())}


def is_alive(pid: int) -> bool:
    status = Path(f"/proc/{pid}/status")
    return status.exists() and "State:\tZ" not in status.read_text()


def node_of(pool: RayPool, name: str) -> str:
    pool._ray.get(pool._actors[name].location, timeout=PATIENCE_S)
    actor_id = pool._actors[name].handle._actor_id.hex()
    return str(pool._ray._private.state.actors(actor_id)["Address"]["NodeID"])


def exit_of(pool: RayPool, name: str) -> Exit:
    give_up_at = time.monotonic() + PATIENCE_S
    while (ended := pool.poll()[name]) is None and time.monotonic() < give_up_at:
        pool._ray.wait([pool._actors[name].result], timeout=PATIENCE_S)
    assert ended is not None
    return ended


def test_an_actor_outlives_its_supervisor_and_is_adopted_by_the_next(pool, cluster, tmp_path):
    pid = orphaned(cluster, tmp_path, "w0")["w0"]
    assert pool.adopt("w0", "", 0)
    assert pool._ray.get(pool._actors["w0"].location)[1] == pid
    assert pool.poll()["w0"] is None
    with pytest.raises(ValueError, match="w0"):
        pool.start("w0")


def test_the_exit_code_of_an_adopted_actor_is_reported(pool, cluster, tmp_path):
    orphaned(cluster, tmp_path, "w1")
    pool.adopt("w1", "", 0)
    pool._ray.get(pool._actors["w1"].handle.drain.options(concurrency_group="control").remote("test"))
    assert exit_of(pool, "w1") == Exit(0, "as asked")


def test_an_actor_that_looks_for_its_learner_elsewhere_is_ended(pool, cluster, tmp_path, monkeypatch):
    pid = orphaned(cluster, tmp_path, "w3")["w3"]
    end = select.poll()
    end.register(os.pidfd_open(pid), select.POLLIN)
    monkeypatch.setattr(pool, "_arguments", ("127.0.0.1:2", "token", ""))
    assert not pool.adopt("w3", "", 0)
    assert end.poll(1000 * PATIENCE_S)


def test_a_worker_that_nobody_has_started_is_not_adopted(pool):
    assert not pool.adopt("w99", "", 0)


def test_a_worker_that_has_ended_is_not_adopted(pool):
    pool.start("exits-early")
    assert exit_of(pool, "exits-early").code == 75
    assert not pool.adopt("exits-early", "", 0)


def test_an_actor_ends_by_itself_where_no_supervisor_sees_its_end(pool, cluster, tmp_path):
    pid = orphaned(cluster, tmp_path, "w2")["w2"]
    end = select.poll()
    end.register(os.pidfd_open(pid), select.POLLIN)
    handle = pool._ray.get_actor(pool._named_actors("w2")[0], namespace="unspool")
    handle.drain.options(concurrency_group="control").remote("test")
    assert end.poll(1000 * PATIENCE_S)


def test_a_worker_is_kept_off_a_node(pool, monkeypatch):
    avoided, *_ = (node["NodeID"] for node in pool._ray.nodes() if node["Resources"].get("CPU"))
    monkeypatch.setattr(
        "workers.pools.ray_pool.elsewhere", lambda ray, hosts: {"ray.io/node-id": f"!in({avoided})"}
    )
    names = [f"kept-off-{number}" for number in range(3)]
    for name in names:
        pool.start(name)
    assert avoided not in {node_of(pool, name) for name in names}


def test_avoiding_the_only_host_leaves_nowhere_to_start(pool):
    host = pool._ray.nodes()[0]["NodeManagerHostname"]
    assert not pool.avoid([host])
    assert pool.avoid([])


def test_the_autoscaler_is_asked_for_room_and_the_request_is_taken_back(pool):
    def requested() -> list[dict[str, float]]:
        key = pool._ray._private.ray_constants.AUTOSCALER_RESOURCE_REQUEST_CHANNEL
        from ray.experimental.internal_kv import _internal_kv_get

        return json.loads(_internal_kv_get(key) or "[]")

    pool.expect(3)
    assert len(requested()) == 3
    pool.expect(0)
    assert requested() == []


def test_a_worker_whose_node_will_be_taken_away_is_named_with_its_time(pool, cluster):
    from ray._raylet import GcsClient
    from ray.core.generated.autoscaler_pb2 import DrainNodeReason

    pool.start("doomed")
    node = node_of(pool, "doomed")
    assert "doomed" not in pool.draining()
    at_ms = int(1e3 * (time.time() + 600))
    reason = DrainNodeReason.Value("DRAIN_NODE_REASON_PREEMPTION")
    assert GcsClient(address=cluster.address).drain_node(node, reason, "test", at_ms)[0]
    assert 500 < pool.draining()["doomed"] <= 600
