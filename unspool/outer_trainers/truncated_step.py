"""The interface of unrolled systems: one step, as gradient estimators unroll it.

A system is written for a single unroll (`TruncatedStep`) and mapped over `num_tasks` of them by
`VectorizedTruncatedStep`. Estimators take a `VectorizedStep`: either that wrapper or, for learned optimizers,
`VectorizedLOptTruncatedStep`. The interface does not depend on the meaning of theta: it may parametrise an
optimizer, a differential equation, a policy, or any other unrolled system.
"""

from unspool.steps.step_outputs import (
    EpisodesInExpectation,
    ResidentData,
    TruncatedUnrollOut,
    with_a_reset_step,
)
from unspool.steps.truncated_step import TruncatedStep
from unspool.steps.vectorized_step import VectorizedStep
from unspool.steps.vectorized_truncated_step import VectorizedTruncatedStep
from unspool.types import OuterState, UnrollState

__all__ = [
    "EpisodesInExpectation",
    "OuterState",
    "ResidentData",
    "TruncatedStep",
    "TruncatedUnrollOut",
    "UnrollState",
    "VectorizedStep",
    "VectorizedTruncatedStep",
    "with_a_reset_step",
]
