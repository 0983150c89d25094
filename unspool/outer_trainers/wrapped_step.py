"""A step around another one, of which it changes something."""

import dataclasses

import jax

from unspool.outer_trainers.truncated_step import (
    EpisodesInExpectation,
    OuterState,
    ResidentData,
    UnrollState,
    VectorizedStep,
)
from unspool.types import Batch, PRNGKey, PyTree, Theta


@dataclasses.dataclass(frozen=True)
class WrappedStep(VectorizedStep):
    """Does what `step` does, except for what a subclass says.

    Attributes:
        step: the system.
    """

    step: VectorizedStep

    @property
    def num_tasks(self) -> int:  # type: ignore[override]  # a plain attribute of the class above
        """Unrolls side by side."""
        return self.step.num_tasks

    def outer_init(self, key: PRNGKey) -> Theta:
        return self.step.outer_init(key)

    def keys_of_steps(self, keys: PRNGKey) -> PyTree:
        return self.step.keys_of_steps(keys)

    def get_batch(self, steps: int | None = None) -> Batch | None:
        return self.step.get_batch(steps)

    def get_outer_batch(self, steps: int | None = None) -> Batch | None:
        return self.step.get_outer_batch(steps)

    def outer_batch_of(self, data: Batch) -> Batch:
        return self.step.outer_batch_of(data)

    def resident_data(self) -> ResidentData | None:
        return self.step.resident_data()

    def meta_loss_batch(
        self,
        theta: Theta,
        unroll_state: UnrollState,
        key: PRNGKey,
        data: Batch,
        outer_state: OuterState,
        theta_is_vector: bool = False,
    ) -> jax.Array:
        return self.step.meta_loss_batch(theta, unroll_state, key, data, outer_state, theta_is_vector)

    @property
    def keeps_last_state(self) -> bool:
        return self.step.keeps_last_state

    def episodes(self, outer_state: OuterState) -> EpisodesInExpectation:
        return self.step.episodes(outer_state)

    def label(self) -> str:
        return self.step.label()
