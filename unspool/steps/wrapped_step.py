"""The base class of steps that modify another step."""

import dataclasses

from unspool.steps.step_outputs import EpisodesInExpectation, ResidentData
from unspool.steps.vectorized_step import VectorizedStep
from unspool.types import Batch, OuterState, PRNGKey, Theta


@dataclasses.dataclass(frozen=True)
class WrappedStep(VectorizedStep):
    """A step with the data, episodes and initial theta of `step`; a subclass defines the step itself."""

    step: VectorizedStep

    @property
    def keeps_last_state(self) -> bool:
        return self.step.keeps_last_state

    def outer_init(self, key: PRNGKey) -> Theta:
        return self.step.outer_init(key)

    def get_batch(self, steps: int | None = None) -> Batch | None:
        return self.step.get_batch(steps)

    def get_outer_batch(self, steps: int | None = None) -> Batch | None:
        return self.step.get_outer_batch(steps)

    def outer_batch_of(self, data: Batch) -> Batch:
        return self.step.outer_batch_of(data)

    def resident_data(self) -> ResidentData | None:
        return self.step.resident_data()

    def episodes(self, outer_state: OuterState) -> EpisodesInExpectation:
        return self.step.episodes(outer_state)

    def label(self) -> str:
        return self.step.label()
