"""One step of an unrolled system: what a gradient estimator unrolls, and all that it knows of the system.

A system is written for a single unroll (`TruncatedStep`) and mapped over `num_tasks` of them by
`VectorizedTruncatedStep`. Estimators take a `VectorizedStep`: either that wrapper or, for learned optimizers,
`VectorizedLOptTruncatedStep`. Nothing here knows what theta is: it may parametrise an optimizer, the
coefficients of a differential equation, a policy, or anything else that is unrolled.
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
