"""A real learner over loopback, and the expected final theta."""

import json
import socket
import threading
from pathlib import Path

from learner.main import serve
from protos.rpc.access import Tokens
from tests.learner.builders import settings_of
from tests.support.patience import PATIENCE_S
from tests.workers.fake_learner import EXPERIMENT
from unspool import serialization
from unspool.experiment import Experiment
from unspool.lanes import estimate_lane, init_lane, theta_key
from unspool.outer_trainers.gradient_learner import AggregatedGradient, GradientLearner
from workers.session.client import LearnerClient
from workers.settings import WorkerSettings
from workers.unrolling.thetas import weights_of
from workers.unrolling.worker import UnrollWorker

TOKEN = "token"


def straight_loop() -> str:
    """Return the digest of theta after the same updates in one loop, without learner or workers."""
    experiment = Experiment.from_toml(EXPERIMENT)
    outer = GradientLearner(experiment.init, experiment.outer_optimizer, experiment.outer_steps)
    outer_state = outer.init(theta_key(experiment.seed))
    lanes = range(experiment.lanes)
    weights = weights_of(outer.get_meta_params(outer_state), 0)
    states = [init_lane(experiment.estimator(lane), weights, experiment.seed, lane) for lane in lanes]
    for outer_step in range(experiment.outer_steps):
        weights = weights_of(outer.get_meta_params(outer_state), outer_step)
        estimates = [
            estimate_lane(
                experiment.estimator(lane), weights, states[lane], experiment.seed, lane, outer_step + 1
            )
            for lane in lanes
        ]
        states = [estimate.unroll_state for estimate in estimates]
        batch = [AggregatedGradient(e.grad, None, e.mean_loss, e.weight) for e in estimates]
        outer_state, _ = outer.update(outer_state, batch)
    return serialization.digest(outer.get_meta_params(outer_state))


class Cluster:
    """A learner and its workers, each in a thread."""

    def __init__(self, run_dir: Path, **changes: object) -> None:
        self._run_dir = run_dir
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.address = f"127.0.0.1:{port}"
        values = {
            "run_dir": run_dir,
            "run_id": "run",
            "experiment": Experiment.from_toml(EXPERIMENT),
            "experiment_toml": EXPERIMENT,
            "config_sha256": "c" * 64,
            "tokens": Tokens(admin="admin", worker=TOKEN, viewer="viewer"),
            "lanes": 4,
            "max_staleness": 0,
            "credits": 1,
            "quorum": 1.0,
            "grace_s": 0.0,
            "on_rollback": "restore",
            "port": port,
            "heartbeat_s": 1.0,
            "patience": 5,
            "orphan_ttl_s": PATIENCE_S,
            "every": 3,
            "keep": 2,
            "count": 1,
            "max_count": 8,
            "gather_s": 0.0,
        }
        settings = settings_of(**(values | changes))
        self._threads = [threading.Thread(target=serve, args=(settings,), name="learner")]
        self._threads[0].start()
        self.workers: list[UnrollWorker] = []
        self.codes: dict[str, int] = {}

    def client(self, token: str = TOKEN) -> LearnerClient:
        return LearnerClient(self.address, token)

    def start_worker(self, client: LearnerClient | None = None) -> None:
        name = f"w{len(self.workers)}"
        settings = WorkerSettings(learner=self.address, token=TOKEN, name=name)
        worker = UnrollWorker(settings, client or self.client())
        self.workers.append(worker)
        self._threads.append(
            threading.Thread(target=lambda: self.codes.update({name: worker.run()}), name=name)
        )
        self._threads[-1].start()

    def wait_for_end(self, worker: str) -> None:
        """Wait until a worker has ended."""
        (thread,) = [thread for thread in self._threads if thread.name == worker]
        thread.join(PATIENCE_S)

    def finish(self) -> dict[str, object]:
        """Wait until the learner and all workers have ended; return the learner's last status."""
        for thread in self._threads:
            thread.join(PATIENCE_S)
            assert not thread.is_alive(), (
                f"{thread.name} is still running:\n{[worker.stack() for worker in self.workers]}"
            )
        return json.loads((self._run_dir / "status.json").read_text())
