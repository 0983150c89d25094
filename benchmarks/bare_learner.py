"""A learner's data plane in a separate process, to measure the cost of a push without any computation.

`python -m benchmarks.bare_learner LANES BODY_BYTES BATCH RUN_DIR` prints its address and serves until its
standard input is closed. A push passes through the code of the learner: gRPC, tokens, chunks, checksums,
leases, verdicts, credits, announcements. Only the outer update is replaced: the outer step increases, and
theta does not change.
"""

import contextlib
import dataclasses
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from learner.coordination.core import LearnerCore
from learner.servers.worker_service import LearnerHost
from learner.settings import LearnerSettings
from learner.state.counters import Counters
from learner.state.lanes import LaneTable
from learner.state.run import Run, Telemetry
from learner.storage.events import EventLog
from learner.storage.snapshots import SnapshotStore
from learner.storage.thetas import Published, ThetaHistory
from learner.storage.update_record import Effect, Outcome
from learner.tables import AggregationTable, CheckpointTable, LivenessTable, WorkersTable
from learner.threads import Ticker
from protos import codec
from protos.rpc.access import Access, Tokens
from protos.rpc.denials import Denials
from protos.rpc.server import GrpcServer, reuse_large_blocks
from protos.rpc.session_service import SessionServicer
from protos.unspool.v1 import learner_pb2_grpc
from unspool.experiment import Experiment

TOKEN = "token-of-workers"
_MANY = 1 << 30
_MOST_WORKERS = 600
_TICK_S = 0.25
_JOIN_S = 10.0
_EXPERIMENT = """
seed = 0
outer_steps = 1000000000
[learned_optimizer]
type = "LearnableSGD"
[outer_optimizer]
type = "sgd"
learning_rate = 0.01
[aggregation]
lanes = {lanes}
[[estimators]]
type = "TruncatedPES"
trunc_length = 10
num_tasks = 2
truncation_schedule = {{ type = "ConstantTruncationSchedule", total_length = 20 }}
task_family = {{ type = "FixedDimQuadraticFamily", dim = 3 }}
"""


@dataclasses.dataclass(frozen=True)
class BareLearner:
    """The process as its parent sees it."""

    address: str
    pid: int

    @property
    def cpu_s(self) -> float:
        """CPU seconds used so far."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    @property
    def resident_mb(self) -> float:
        """Current resident memory in megabytes."""
        pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


@contextlib.contextmanager
def bare_learner(folder: str, *, lanes: int, body_bytes: int, batch: int) -> Iterator[BareLearner]:
    """Runs a `BareLearner` until the block ends."""
    command = [
        sys.executable,
        "-m",
        "benchmarks.bare_learner",
        str(lanes),
        str(body_bytes),
        str(batch),
        folder,
    ]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            yield BareLearner(process.stdout.readline().strip(), process.pid)
        finally:
            process.stdin.close()


def main(lanes: str, body_bytes: str, batch: str, folder: str) -> None:
    """Serves until standard input is closed."""
    reuse_large_blocks()
    settings = settings_of(int(lanes), int(batch), Path(folder))
    core = LearnerCore(run_of(settings, int(body_bytes)))
    servicer = SessionServicer(LearnerHost(core, SnapshotStore(settings.run_dir / "lanes")))
    access = Access(
        settings.tokens.by_role(), settings.run_id, Denials(report=lambda *_: None), is_mutual=False
    )
    server = GrpcServer("data-plane", settings.workers.max_count + 32, access)
    port = server.bind("127.0.0.1", 0)
    learner_pb2_grpc.add_LearnerServicer_to_server(servicer, server.server)
    server.start()
    ticker = Ticker("ticker", _TICK_S, core.tick, lambda _: None)
    ticker.start()
    updates = threading.Thread(target=_publish_unchanged, args=(core,), name="update")
    updates.start()
    print(f"127.0.0.1:{port}", flush=True)
    sys.stdin.read()
    core.hang_up()
    server.stop(1.0)
    ticker.stop()
    core.admin.stop(now=True, reason="the benchmark has ended")
    updates.join(_JOIN_S)


def settings_of(lanes: int, batch: int, folder: Path) -> LearnerSettings:
    """An `async` learner that has room for any number of pushes."""
    experiment_toml = _EXPERIMENT.format(lanes=lanes)
    return LearnerSettings(
        run_dir=folder,
        run_id="benchmark",
        experiment=Experiment.from_toml(experiment_toml),
        experiment_toml=experiment_toml,
        config_sha256="0" * 64,
        tokens=Tokens(admin="admin", worker=TOKEN, viewer="viewer"),
        # The last stream that pushes must be able to fill a batch on its own.
        aggregation=AggregationTable(lanes, "async", batch=batch, max_staleness=_MANY, credits=batch),
        # The learner leases lanes when this many workers have joined: one to each.
        workers=WorkersTable(count=lanes, max_count=_MOST_WORKERS),
        checkpoint=CheckpointTable(every=_MANY),
        liveness=LivenessTable(patience=30),
        gather_s=60.0,
    )


def run_of(settings: LearnerSettings, body_bytes: int) -> Run:
    """Returns a new run at outer step 0."""
    theta = [np.zeros(body_bytes // 4, np.float32)]
    return Run(
        settings=settings,
        schema=codec.schema_of(theta),
        term=1,
        lanes=LaneTable(settings.experiment.lanes, 1),
        thetas=ThetaHistory([Published.of(0, bytes(body_bytes))]),
        theta=theta,
        learner_state=None,
        telemetry=Telemetry.of(
            EventLog(settings.run_dir / "events.jsonl"), Counters(time.monotonic()), time.monotonic
        ),
        clock=time.monotonic,
    )


def _publish_unchanged(core: LearnerCore) -> None:
    """Publish the same theta for every batch until the run is stopped."""
    theta = core.theta(0)
    while True:
        core.updates.wait()
        work = core.updates.take()
        if work.batch is None:
            return
        published = dataclasses.replace(theta, outer_step=work.outer_step + 1)
        outcome = Outcome(published, None, None, Effect.MOVED, loss=1.0, grad_norm=1.0, update_norm=1.0)
        core.updates.applied(outcome)


if __name__ == "__main__":
    main(*sys.argv[1:])
