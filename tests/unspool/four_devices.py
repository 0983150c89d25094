"""The measurements that `test_device_mesh` asserts on, made in a process with four devices.

`python -m tests.unspool.four_devices` prints them as JSON, by the names of `CASES`.
"""

import collections
import dataclasses
import json
import logging
import re
import sys
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from tests.unspool.outer_trainers import examples
from tests.unspool.outer_trainers.systems import LinearSystem
from unspool import lanes, serialization
from unspool.device_mesh import on_each_device, task_mesh
from unspool.outer_trainers.gradient_estimator import GradientEstimator
from unspool.outer_trainers.gradient_learner import SingleMachineGradientLearner
from unspool.outer_trainers.truncated_pes import TruncatedPES
from unspool.outer_trainers.truncated_step import (
    ResidentData,
    TruncatedStep,
    TruncatedUnrollOut,
    VectorizedTruncatedStep,
)
from unspool.tasks.base import Task, single_task_to_family
from unspool.tasks.datasets.base import datasets_from
from unspool.types import Batch, Params, PRNGKey, Theta

NUM_DEVICES = 4
NUM_TASKS = 8
SEED, LANE = 7, 3
CALLS = 20
SUM = re.compile(r" all-reduce(?:-start)?\(")
OTHER_EXCHANGE = re.compile(r" (?:all-gather|all-to-all|collective-\w+|reduce-scatter)(?:-start)?\(")
COMPUTATION = re.compile(r"^(ENTRY )?%?[\w.\-]+ .*\{$")


@dataclasses.dataclass(frozen=True)
class Streamed(TruncatedStep):
    """`x <- 0.9 x + theta batch`, with batches from the host."""

    def outer_init(self, key: PRNGKey) -> Theta:
        return {"gain": jnp.ones(())}

    def init_step_state(self, theta: Theta, outer_state: Any, key: PRNGKey) -> Any:
        return jax.random.normal(key, (3,))

    def unroll_step(
        self, theta: Theta, unroll_state: Any, key: PRNGKey, data: Batch, outer_state: Any
    ) -> tuple[Any, TruncatedUnrollOut]:
        state = 0.9 * unroll_state + theta["gain"] * data
        loss, never = jnp.sum(state**2), jnp.zeros((), bool)
        return state, TruncatedUnrollOut(loss, never, (), jnp.zeros((), jnp.int32), ~never)

    def get_batch(self, steps: int) -> Batch:
        return np.linspace(-1.0, 1.0, 3 * steps, dtype=np.float32).reshape(steps, 3)


@dataclasses.dataclass(frozen=True)
class SmallSystem(LinearSystem):
    """A system that compiles much faster than a learned optimizer."""

    def resident_data(self) -> ResidentData:
        return ResidentData(())


def _on_a_small_system(name: str, **options: Any) -> GradientEstimator:
    return examples.ESTIMATORS[name](VectorizedTruncatedStep(SmallSystem(7), NUM_TASKS), **options)


class Regression(Task):
    """`mean((x - data)^2)`."""

    datasets = datasets_from(lambda _: np.linspace(-1.0, 1.0, 64, dtype=np.float32), batch_size=4)

    def init(self, key: PRNGKey) -> Params:
        return jax.random.normal(key, ())

    def loss(self, params: Params, key: PRNGKey, data: Batch) -> jax.Array:
        return jnp.mean((params - data) ** 2)


def _of_a_learned_optimizer() -> GradientEstimator:
    family = single_task_to_family(Regression())
    step = examples.learned_optimizer_step("TruncatedPES", family, meta_loss_split="outer_valid")
    return examples.ESTIMATORS["TruncatedPES"](step)


CASES: dict[str, Callable[[], GradientEstimator]] = {
    **{name: lambda name=name: _on_a_small_system(name) for name in examples.ESTIMATORS},
    "one after the other": lambda: _on_a_small_system("TruncatedPES", stack_antithetic_samples=False),
    "orthogonal pairs": lambda: _on_a_small_system("TruncatedPES", pairs_per_task=2, orthogonal=True),
    "a learned optimizer": _of_a_learned_optimizer,
    "streamed data": lambda: TruncatedPES(VectorizedTruncatedStep(Streamed(), NUM_TASKS), 10),
}


class _Compilations(logging.Handler):
    """A handler of JAX's log that counts the compilations of an estimate."""

    count = 0

    def emit(self, record: logging.LogRecord) -> None:
        self.count += record.getMessage().startswith("Compiling")

    def __enter__(self) -> "_Compilations":
        logging.getLogger("jax").addHandler(self)
        return self

    def __exit__(self, *_: object) -> None:
        logging.getLogger("jax").removeHandler(self)


class _Lane:
    """One lane on some devices."""

    def __init__(self, estimator: GradientEstimator, num_devices: int) -> None:
        self.estimator = estimator
        self.mesh = task_mesh(jax.devices()[:num_devices]) if num_devices > 1 else None
        self.weights = on_each_device(examples.weights_of(estimator), self.mesh)

    def start(self) -> Any:
        return lanes.init_lane(self.estimator, self.weights, SEED, LANE, self.mesh)

    def estimate(self, state: Any, seq: int) -> lanes.LaneEstimate:
        return lanes.estimate_lane(self.estimator, self.weights, state, SEED, LANE, seq, self.mesh)

    def restored(self, snapshot: bytes) -> Any:
        shape = lanes.lane_state_shape(self.estimator, self.weights)
        return lanes.place_state(self.estimator, serialization.from_bytes(snapshot, shape), self.mesh)

    def hlo(self, state: Any) -> str:
        data = lanes._data(self.estimator, self.mesh)
        arguments = (self.weights, state, np.uint32(SEED), LANE, 1, data)
        compiled = lanes._compiled_estimate.lower(self.estimator, self.mesh, *arguments).compile()
        return str(compiled.as_text())


def snapshot_of(state: Any) -> bytes:
    """Return the snapshot of a state as a worker sends it."""
    return serialization.to_bytes(jax.device_get(state), {})


def difference(one: Any, other: Any) -> float:
    """Return the difference of two pytrees relative to the norm."""
    flat = [np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)]) for tree in (one, other)]
    return float(np.linalg.norm(flat[0] - flat[1]) / np.linalg.norm(flat[0]))


def is_divided(state: Any) -> bool:
    """Return whether every leaf is divided over the devices."""
    shares = [leaf.addressable_shards[0].data.shape[0] / leaf.shape[0] for leaf in jax.tree.leaves(state)]
    return all(share == 1 / NUM_DEVICES for share in shares)


def exchanges(hlo: str) -> collections.Counter[str]:
    """Count the all-reduces inside and outside of loops, and the other collectives."""
    found: collections.Counter[str] = collections.Counter()
    place = ""
    for line in hlo.splitlines():
        heading = COMPUTATION.match(line)
        if heading:
            place = "sums at the end" if heading[1] else "sums in loops"
        found[place] += bool(SUM.search(line))
        found["of other kinds"] += bool(OTHER_EXCHANGE.search(line))
    return found


def facts(estimator: GradientEstimator) -> dict[str, Any]:
    """Return all measurements of one estimator."""
    one, four = _Lane(estimator, 1), _Lane(estimator, NUM_DEVICES)
    start_of_one, start_of_four = one.start(), four.start()
    with jax.log_compiles(), _Compilations() as first:
        began = [one.estimate(start_of_one, 1), four.estimate(start_of_four, 1)]
    snapshots = [snapshot_of(estimate.unroll_state) for estimate in began]
    stayed = [one.estimate(began[0].unroll_state, 2), four.estimate(began[1].unroll_state, 2)]
    moved = [four.estimate(four.restored(snapshots[0]), 2), one.estimate(one.restored(snapshots[1]), 2)]
    state = stayed[1].unroll_state
    with jax.log_compiles(), _Compilations() as later:
        for seq in range(3, 3 + CALLS):
            state = four.estimate(state, seq).unroll_state
    hlo = four.hlo(state)
    return {
        "difference at the start": difference(began[0].grad, began[1].grad),
        "differences after a move": [difference(a.grad, b.grad) for a, b in zip(stayed, moved, strict=True)],
        "is divided": [is_divided(tree) for tree in (start_of_four, state, four.restored(snapshots[0]))],
        "snapshots survive": [
            snapshot_of(lane.restored(snapshot)) == snapshot for lane in (one, four) for snapshot in snapshots
        ],
        "compilations": [first.count, later.count],
        "exchanges": exchanges(hlo),
        "conditionals": hlo.count(" conditional("),
    }


def thetas_of_outer_training() -> list[Any]:
    """Return theta after three updates of two lanes, on one device and on four."""
    thetas = []
    estimators = [examples.example(name) for name in ("TruncatedPES", "TruncatedES")]
    for mesh in (None, task_mesh(jax.devices())):
        learner = SingleMachineGradientLearner(
            estimators[0].truncated_step.learned_opt, estimators, optax.adam(0.1), mesh=mesh
        )
        key = jax.random.key(SEED)
        state = learner.init(key)
        for _ in range(3):
            state, _, _ = learner.update(state, key)
        thetas.append(jax.device_get(learner.get_meta_params(state)))
    return thetas


def refusal(name: str) -> str:
    """Return the estimator's error for a number of tasks that four devices cannot divide evenly."""
    try:
        _Lane(examples.example(name), NUM_DEVICES).start()
    except ValueError as error:
        return str(error)
    return ""


def main() -> None:
    """Write the measurements to standard output."""
    refusals = {name: refusal(name) for name in ("TruncatedPES", "FullES")}
    examples.NUM_TASKS = NUM_TASKS
    found = {name: facts(make()) for name, make in CASES.items()}
    theta_difference = difference(*thetas_of_outer_training())
    json.dump({"cases": found, "outer training": theta_difference, "refusals": refusals}, sys.stdout)


if __name__ == "__main__":
    main()
