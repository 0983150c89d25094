"""B7, the staleness limit: the largest stable learning rate for gradients that are some outer steps old.

Gradient descent on a quadratic of curvature `c` with gradients that are exactly `s` outer steps old is stable
up to a learning rate of `2 sin(pi / (2 (2 s + 1))) / c`: the first root of `z^(s + 1) - z^s + lr c` to leave
the unit circle. Here the gradients go through the learner itself, in `async`, from a scripted worker.
"""

import functools
import itertools
import math
import tempfile
from pathlib import Path
from typing import Final

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from benchmarks.reproduce.report import Result, Row
from learner.coordination.core import LearnerCore
from learner.coordination.pushes import Body
from learner.settings import LearnerSettings
from learner.storage.checkpoint_store import CheckpointStore
from learner.storage.events import EventLog
from learner.storage.snapshots import SnapshotStore
from learner.tables import AggregationTable, CheckpointTable, LivenessTable, WorkersTable
from learner.training.outer import OuterLearner
from learner.training.resume import restore
from protos import codec
from protos.rpc.access import Tokens
from protos.rpc.send_queue import SendQueue
from protos.unspool.v1 import learner_pb2
from unspool.experiment import Experiment

NAME = "Staleness limit"

STALENESSES: Final = (0, 10, 50)
SHARES: Final = (0.5, 2.0)
GONE, FAR = 1e-2, 1e2
_STEPS_PER_VERSION, _STEPS = 20, 60
_ASTRONOMICAL = 1e12
_NOTES = f"""\
The learner runs in `async` with `max_staleness = s`, and a worker sends it the gradient of `x^2 / 2` at
the theta of exactly s updates before. Theta is trained by SGD for {_STEPS} + {_STEPS_PER_VERSION} s
updates, with half and with twice the predicted limit of the learning rate. The table shows the maximum
of |theta| over the last s + 1 updates, relative to its initial value."""

_EXPERIMENT = """
seed = 0
outer_steps = 100000
outer_optimizer = {{ type = "sgd", learning_rate = {learning_rate!r} }}
aggregation = {{ lanes = 1 }}
[[estimators]]
type = "NRES"
unroll_length = 5
num_tasks = 1
truncated_step = {{ type = "InfluenceBalancing" }}
"""


def run(quick: bool) -> Result:
    """Runs half and twice the predicted limit for each staleness."""
    del quick  # it takes seconds
    courses = {(s, share): course(s, share * limit(s)) for s in STALENESSES for share in SHARES}
    rows = [_row(s, share, distances) for (s, share), distances in courses.items()]
    columns = ("staleness", "predicted limit", "learning rate x curvature", "|theta| at the end")
    return Result("B7: the staleness limit", columns, rows, functools.partial(_draw, courses), _NOTES)


def limit(staleness: int) -> float:
    """Returns the largest stable product of learning rate and curvature."""
    return 2 * math.sin(math.pi / (2 * (2 * staleness + 1)))


def course(staleness: int, learning_rate: float) -> NDArray[np.float64]:
    """Returns |theta| after each update, relative to the first; ends early if it is astronomical."""
    with tempfile.TemporaryDirectory() as directory:
        return _course(Path(directory), staleness, learning_rate)


def at_the_end(distances: NDArray[np.float64], staleness: int) -> float:
    """Returns the maximum over the last outer steps, because theta oscillates."""
    return float(distances[-staleness - 1 :].max())


def _course(directory: Path, staleness: int, learning_rate: float) -> NDArray[np.float64]:
    settings = _settings(directory, staleness, learning_rate)
    outer = OuterLearner(settings.experiment, settings.aggregation.batch_size)
    checkpoints, snapshots = CheckpointStore(directory, keep=1), SnapshotStore(directory / "lanes")
    steps = itertools.count()
    run = restore(
        settings, 1, outer, checkpoints, snapshots, EventLog(directory / "events"), lambda: float(next(steps))
    )
    core = LearnerCore(run)
    session_id, stream = _enter(core)
    bodies = [run.thetas.newest.body]
    for outer_step in range(_STEPS + _STEPS_PER_VERSION * staleness):
        made_with = max(0, outer_step - staleness)
        _push(core, session_id, outer_step, made_with, bodies[made_with], outer)
        batch = core.updates.take_batch()
        if batch is None:
            raise RuntimeError(f"the gradient of theta {made_with} was not accepted at step {outer_step}")
        core.updates.applied(outer.apply(outer_step, batch))
        while len(stream):
            next(iter(stream))
        bodies.append(run.thetas.newest.body)
        if abs(_drive(bodies[-1])) > _ASTRONOMICAL:
            break
    drives = np.abs([_drive(body) for body in bodies])
    return drives / drives[0]


def _settings(directory: Path, staleness: int, learning_rate: float) -> LearnerSettings:
    toml = _EXPERIMENT.format(learning_rate=learning_rate)
    return LearnerSettings(
        run_dir=directory,
        run_id="staleness",
        experiment=Experiment.from_toml(toml),
        experiment_toml=toml,
        config_sha256="",
        tokens=Tokens(admin="a", worker="w", viewer="v"),
        aggregation=AggregationTable(1, "async", batch=1, max_staleness=staleness, credits=1),
        workers=WorkersTable(count=1, max_count=1),
        checkpoint=CheckpointTable(every=1_000_000),
        liveness=LivenessTable(heartbeat_s=3600.0, patience=10_000),
    )


def _enter(core: LearnerCore) -> tuple[str, SendQueue]:
    request = learner_pb2.JoinRequest(protocol_min=1, protocol_max=1, worker_name="w0", process_uuid="i0")
    attached = core.attach(core.join(request).session_secret)
    if attached is None:
        raise RuntimeError("the worker could not open its stream")
    return attached


def _push(
    core: LearnerCore, session_id: str, outer_step: int, made_with: int, theta: bytes, outer: OuterLearner
) -> None:
    """Send the gradient of `x^2 / 2`, which is x: theta's own bytes."""
    push = learner_pb2.GradientEstimatorOut(
        push_id=outer_step + 1,
        lane=0,
        fencing_token=core.status().lanes[0].fencing_token,
        seq=outer_step + 1,
        outer_step=made_with,
        weight=1.0,
        grad=codec.tensors(theta, 0, len(theta)),
    )
    core.pushes.receive(session_id, push, Body.read(push, theta, outer.schema))


def _drive(body: bytes) -> float:
    return float(np.frombuffer(body, np.float32)[0])


def _row(staleness: int, share: float, distances: NDArray[np.float64]) -> Row:
    end = at_the_end(distances, staleness)
    is_stable = share < 1
    bar, holds = (f"<= {GONE:g}", end <= GONE) if is_stable else (f">= {FAR:g}", end >= FAR)
    rate = f"{share * limit(staleness):.4f}"
    return Row((str(staleness), f"{limit(staleness):.4f}", rate, f"{end:.2g}"), bar, holds)


def _draw(courses: dict[tuple[int, float], NDArray[np.float64]], axes: Axes) -> None:
    for (staleness, share), distances in courses.items():
        axes.plot(distances, label=f"s = {staleness}, {share:g} x limit")
    axes.set(xlabel="outer step", ylabel="|theta| / |theta at first|", yscale="log", ylim=(1e-9, 1e9))
    axes.legend(fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))
