"""A system whose theta is a ledger: entry `[lane, seq - 1]` counts how often that estimate was applied.

The gradient of an estimate is minus the one-hot vector of the (lane, seq) of its key, so with SGD and a
learning rate equal to the batch size theta counts estimates. The counts are exact because batch sizes are
powers of two, and so are the weights in the mean.
"""

import dataclasses
import math
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from unspool.lanes import lane_key
from unspool.outer_trainers.gradient_estimator import (
    GradientEstimator,
    GradientEstimatorOut,
    Metrics,
    UnrollInfo,
    WorkerWeights,
)
from unspool.outer_trainers.truncated_step import (
    TruncatedStep,
    TruncatedUnrollOut,
    VectorizedStep,
)
from unspool.types import Batch, PRNGKey, PyTree, Theta


@dataclasses.dataclass(frozen=True)
class Ledger(TruncatedStep):
    """A step that defines theta's shape, `{"applied": [lanes, seqs]}`; it is never unrolled."""

    lanes: int
    seqs: int

    def outer_init(self, key: PRNGKey) -> Theta:
        return {"applied": jnp.zeros((self.lanes, self.seqs), jnp.float32)}

    def init_step_state(self, theta: Theta, outer_state: Any, key: PRNGKey) -> PyTree:
        return jnp.zeros((), jnp.int32)

    def unroll_step(
        self, theta: Theta, unroll_state: PyTree, key: PRNGKey, data: Batch, outer_state: Any
    ) -> tuple[PyTree, TruncatedUnrollOut]:
        raise NotImplementedError("OneHot estimates without unrolling")


@dataclasses.dataclass(frozen=True)
class OneHot(GradientEstimator):
    """An estimator that recovers (lane, seq) from its key, with optional faults.

    Attributes:
        truncated_step: a vectorized `Ledger`.
        seed: the run's seed.
        ballast: number of float32 values in the unroll state, which sets the size of snapshots.
        bad_seq: the estimate whose gradient is `bad_value` everywhere; 0 for none.
        bad_value: "nan", or a number so large that theta overflows.
        raises_while: estimates raise while a file of this name exists.
    """

    truncated_step: VectorizedStep
    seed: int
    ballast: int = 0
    bad_seq: int = 0
    bad_value: str = "nan"
    raises_while: str = ""

    def init_worker_state(self, worker_weights: WorkerWeights, key: PRNGKey) -> PyTree:
        return {"estimates": jnp.zeros((), jnp.int32), "ballast": jnp.zeros(self.ballast, jnp.float32)}

    def get_data(self) -> Batch:
        if self.raises_while and Path(self.raises_while).exists():
            raise ArithmeticError("this estimate was told to fail")
        return ()

    def steps_of_data(self) -> int:
        return 1

    def estimate(
        self,
        worker_weights: WorkerWeights,
        key: PRNGKey,
        state: PyTree,
        data: Batch,
        with_summary: bool,
    ) -> tuple[GradientEstimatorOut, Metrics]:
        shape = worker_weights.theta["applied"].shape
        lanes, seqs = jnp.meshgrid(jnp.arange(shape[0]), jnp.arange(1, shape[1] + 1), indexing="ij")
        keys = jax.vmap(jax.vmap(lambda lane, seq: lane_key(self.seed, lane, seq)))(lanes, seqs)
        found = (keys == key).all(axis=-1)
        is_bad = jnp.any(found & (seqs == self.bad_seq))
        grad = jnp.where(is_bad, math.nan if self.bad_value == "nan" else float(self.bad_value), -1.0 * found)
        one = jnp.ones((1, 1), jnp.int32)
        out = GradientEstimatorOut(
            mean_loss=jnp.zeros((), jnp.float32),
            grad={"applied": grad.astype(jnp.float32)},
            unroll_state={"estimates": state["estimates"] + 1, "ballast": state["ballast"] + 1},
            unroll_info=UnrollInfo(one.astype(jnp.float32), one, (), one == 0),
            weight=jnp.ones((), jnp.float32),
            diverged_tasks=jnp.zeros((), jnp.int32),
            inner_steps=jnp.ones((), jnp.int32),
        )
        return out, {}
