"""Workers as Ray actors: on an embedded cluster, and on one of several nodes of which one is lost."""

import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end.launched import launched, processes_naming
from tests.support.experiments import DIGITS, toml_of

pytestmark = [pytest.mark.end_to_end, pytest.mark.slow, pytest.mark.ray]


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("ray") / "digits.toml"
    path.write_text(toml_of(DIGITS, "outer_steps=16", "checkpoint.every=4"))
    return path


@pytest.fixture
def undisturbed(digits_digests: list[str]) -> str:
    """Theta's digest after 16 outer steps of the loop in one process."""
    return digits_digests[15]


def test_ray_actors_give_the_bits_of_the_loop_in_one_process(
    config: Path, undisturbed: str, tmp_path: Path
) -> None:
    with launched(config, tmp_path / "run", "--workers", "2", "--set", "workers.num_cpus=0.5") as run:
        status = run.wait_for(lambda s: s["outer_step"] >= 2 and len(s["workers"]) == 2)
        assert {worker["name"] for worker in status["workers"]} == {"w0", "w1"}
        assert run.finish() == 0, run.output()
        assert run.digest() == undisturbed
    assert processes_naming(str(run.run_dir)) == []


@pytest.fixture
def cluster() -> Iterator[Any]:
    """A head without CPUs and two nodes with room for one worker each, all on this machine."""
    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    from ray.cluster_utils import Cluster

    head = {"num_cpus": 0, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    for _ in range(2):
        add_node(cluster)
    yield cluster
    cluster.shutdown()


def add_node(cluster: Any) -> None:
    cluster.add_node(num_cpus=1, object_store_memory=100 * 2**20)


def test_a_run_on_several_nodes_outlives_one_of_them(
    cluster: Any, config: Path, undisturbed: str, tmp_path: Path
) -> None:
    nodes = list(cluster.worker_nodes)
    host = cluster.address.split(":")[0]
    settings = ["--set", f'learner.host="{host}"', "--set", "learner.insecure=true"]
    options = ["--address", cluster.address, "--workers", "2", *settings]
    with launched(config, tmp_path / "run", *options) as run:
        run.wait_for(lambda s: s["outer_step"] >= 5 and sum(bool(w["lanes"]) for w in s["workers"]) == 2)
        cluster.remove_node(nodes[0], allow_graceful=False)
        add_node(cluster)
        assert run.finish() == 0, run.output()
        assert run.digest() == undisturbed
