"""What estimators unroll: `num_tasks` unrolls side by side, one step at a time."""

import abc
from typing import NamedTuple, final

from jax.typing import ArrayLike
from jaxtyping import Array, Float, Integer

from unspool.steps.step_outputs import EpisodesInExpectation, ResidentData, TruncatedUnrollOut
from unspool.types import Batch, OuterState, PRNGKey, StepKey, Theta, UnrollState


class StepContext(NamedTuple):
    """What a step is given beside theta, its state, a key and data.

    Attributes:
        outer_state: what of outer training a step may depend on.
        theta_is_vector: whether leaves of theta lead with `[num_tasks]`: each task has its own theta.
        num_steps: length of the episode where the schedule does not set one; else None.
    """

    outer_state: OuterState
    theta_is_vector: bool = False
    num_steps: Integer[ArrayLike, ""] | None = None

    @property
    def theta_axis(self) -> int | None:
        """The `vmap` axis of theta."""
        return 0 if self.theta_is_vector else None


class VectorizedStep(abc.ABC):
    """`num_tasks` unrolls side by side. All leaves of a state lead with `[num_tasks]`.

    Callers use `init_step_state`, `unroll_step` and `meta_loss_batch`, which are final. An implementation
    defines `init_tasks`, `step_tasks` and `meta_losses`, which get the optional arguments as one
    `StepContext`.
    """

    num_tasks: int

    @property
    @abc.abstractmethod
    def keeps_last_state(self) -> bool:
        """Whether an episode's last state is there after its last step, as in `TruncatedStep`."""

    @abc.abstractmethod
    def outer_init(self, key: PRNGKey) -> Theta:
        """An initial theta, for one. Consumes `key`."""

    @final
    def init_step_state(
        self,
        theta: Theta,
        outer_state: OuterState,
        key: PRNGKey,
        theta_is_vector: bool = False,
        num_steps_override: Integer[ArrayLike, ""] | None = None,
    ) -> UnrollState:
        """States at the start of an episode. Consumes `key`.

        Args:
            theta: one for all tasks, or with `theta_is_vector` one each.
            outer_state: what of outer training a state may depend on.
            key: of all tasks.
            theta_is_vector: whether leaves of theta lead with `[num_tasks]`.
            num_steps_override: length of the episode where the schedule does not set one.
        """
        return self.init_tasks(theta, key, StepContext(outer_state, theta_is_vector, num_steps_override))

    @final
    def unroll_step(
        self,
        theta: Theta,
        unroll_state: UnrollState,
        key: StepKey,
        data: Batch,
        outer_state: OuterState,
        theta_is_vector: bool = False,
        override_num_steps: Integer[ArrayLike, ""] | None = None,
    ) -> tuple[UnrollState, TruncatedUnrollOut]:
        """One step of every task. Consumes `key`: a key, or what `keys_of_steps` made of one.

        Args:
            theta: one for all tasks, or with `theta_is_vector` one each.
            unroll_state: from the previous step.
            key: of all tasks.
            data: leaves `[num_tasks, ...]`, or `ResidentData`.
            outer_state: what of outer training a step may depend on.
            theta_is_vector: whether leaves of theta lead with `[num_tasks]`.
            override_num_steps: length of the episode where the schedule does not set one.
        """
        context = StepContext(outer_state, theta_is_vector, override_num_steps)
        return self.step_tasks(theta, unroll_state, key, data, context)

    @final
    def meta_loss_batch(
        self,
        theta: Theta,
        unroll_state: UnrollState,
        key: PRNGKey,
        data: Batch,
        outer_state: OuterState,
        theta_is_vector: bool = False,
    ) -> Float[Array, " tasks"]:
        """Losses `[num_tasks]` of states on fresh outer data, without a step. Consumes `key`."""
        return self.meta_losses(theta, unroll_state, key, data, StepContext(outer_state, theta_is_vector))

    @abc.abstractmethod
    def init_tasks(self, theta: Theta, key: PRNGKey, context: StepContext) -> UnrollState:
        """What `init_step_state` returns."""

    @abc.abstractmethod
    def step_tasks(
        self, theta: Theta, state: UnrollState, key: StepKey, data: Batch, context: StepContext
    ) -> tuple[UnrollState, TruncatedUnrollOut]:
        """What `unroll_step` returns."""

    @abc.abstractmethod
    def meta_losses(
        self, theta: Theta, state: UnrollState, key: PRNGKey, data: Batch, context: StepContext
    ) -> Float[Array, " tasks"]:
        """What `meta_loss_batch` returns."""

    @abc.abstractmethod
    def keys_of_steps(self, keys: PRNGKey) -> StepKey:
        """What `unroll_step` takes as `key` at each step, from one key per step `[steps]`.

        Called before an unroll: deriving the keys of all steps and tasks at once is far cheaper than a few at
        a time in between the steps. Consumes `keys`.
        """

    @abc.abstractmethod
    def get_batch(self, steps: int | None = None) -> Batch | None:
        """Host data, leaves `[steps, num_tasks, ...]` (without the first axis if `steps` is None), or
        None.
        """

    @abc.abstractmethod
    def get_outer_batch(self, steps: int | None = None) -> Batch | None:
        """Host data for `meta_loss_batch` by hand, shaped like that of `get_batch`."""

    @abc.abstractmethod
    def outer_batch_of(self, data: Batch) -> Batch:
        """What of a step's data `meta_loss_batch` is given where an estimator evaluates a last state."""

    @abc.abstractmethod
    def resident_data(self) -> ResidentData | None:
        """Data that lives on the device, or None."""

    @abc.abstractmethod
    def episodes(self, outer_state: OuterState) -> EpisodesInExpectation:
        """What is known of the episodes beforehand."""

    @abc.abstractmethod
    def label(self) -> str:
        """What metrics call the step."""
