"""The interface that estimators unroll: one step of `num_tasks` parallel unrolls."""

import abc
from typing import NamedTuple, final

from jax.typing import ArrayLike
from jaxtyping import Array, Float, Integer

from unspool.steps.step_outputs import EpisodesInExpectation, ResidentData, TruncatedUnrollOut
from unspool.types import Batch, OuterState, PRNGKey, StepKey, Theta, UnrollState


class StepContext(NamedTuple):
    """The inputs of a step besides theta, state, key and data.

    Attributes:
        outer_state: the part of the outer training state that a step may depend on.
        theta_is_vector: whether each task has its own theta, so that leaves of theta lead with `[num_tasks]`.
        num_steps: length of the episode, if the schedule does not set one; else None.
    """

    outer_state: OuterState
    theta_is_vector: bool = False
    num_steps: Integer[ArrayLike, ""] | None = None

    @property
    def theta_axis(self) -> int | None:
        """The `vmap` axis of theta."""
        return 0 if self.theta_is_vector else None


class VectorizedStep(abc.ABC):
    """One step of `num_tasks` parallel unrolls. All leaves of a state lead with `[num_tasks]`.

    Theta is shared by all tasks, or with `theta_is_vector` its leaves lead with `[num_tasks]`. Methods take
    one key for all tasks, the part of the outer training state that a step may depend on (`outer_state`), and
    the length of the episode if the schedule does not set one (`num_steps_override`).

    Callers use `init_step_state`, `unroll_step` and `meta_loss_batch`, which are final. Subclasses define
    `init_tasks`, `step_tasks` and `meta_losses`, which get the optional arguments as one `StepContext`.
    """

    num_tasks: int

    @property
    @abc.abstractmethod
    def keeps_last_state(self) -> bool:
        """Whether the last state of an episode is available after its last step, as in `TruncatedStep`."""

    @abc.abstractmethod
    def outer_init(self, key: PRNGKey) -> Theta:
        """Return one initial theta, without a task axis. Consumes `key`."""

    @final
    def init_step_state(
        self,
        theta: Theta,
        outer_state: OuterState,
        key: PRNGKey,
        theta_is_vector: bool = False,
        num_steps_override: Integer[ArrayLike, ""] | None = None,
    ) -> UnrollState:
        """Return the states at the start of an episode. Consumes `key`."""
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
        """Make one step of every task. Consumes `key`: a key, or one element of `keys_of_steps`.

        The leaves of `data` lead with `[num_tasks]`, unless it is `ResidentData`.
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
        """Return the losses `[num_tasks]` of states on fresh outer data, without a step. Consumes `key`."""
        return self.meta_losses(theta, unroll_state, key, data, StepContext(outer_state, theta_is_vector))

    @abc.abstractmethod
    def init_tasks(self, theta: Theta, key: PRNGKey, context: StepContext) -> UnrollState:
        """Return the result of `init_step_state`."""

    @abc.abstractmethod
    def step_tasks(
        self, theta: Theta, state: UnrollState, key: StepKey, data: Batch, context: StepContext
    ) -> tuple[UnrollState, TruncatedUnrollOut]:
        """Return the result of `unroll_step`."""

    @abc.abstractmethod
    def meta_losses(
        self, theta: Theta, state: UnrollState, key: PRNGKey, data: Batch, context: StepContext
    ) -> Float[Array, " tasks"]:
        """Return the result of `meta_loss_batch`."""

    @abc.abstractmethod
    def keys_of_steps(self, keys: PRNGKey) -> StepKey:
        """Return the `key` argument of `unroll_step` for each step, from one key per step `[steps]`.

        Called before an unroll: deriving the keys of all steps and tasks at once is far cheaper than deriving
        them at each step. Consumes `keys`.
        """

    @abc.abstractmethod
    def get_batch(self, steps: int | None = None) -> Batch | None:
        """Return host data, leaves `[steps, num_tasks, ...]` (`[num_tasks, ...]` for None), or None."""

    @abc.abstractmethod
    def get_outer_batch(self, steps: int | None = None) -> Batch | None:
        """Return host data for manual calls of `meta_loss_batch`, shaped like that of `get_batch`."""

    @abc.abstractmethod
    def outer_batch_of(self, data: Batch) -> Batch:
        """Return the part of a step's data on which estimators evaluate `meta_loss_batch`."""

    @abc.abstractmethod
    def resident_data(self) -> ResidentData | None:
        """Return the data on the device, or None."""

    @abc.abstractmethod
    def episodes(self, outer_state: OuterState) -> EpisodesInExpectation:
        """Return the expected properties of the episodes."""

    @abc.abstractmethod
    def label(self) -> str:
        """Return the name of the step in metrics."""
