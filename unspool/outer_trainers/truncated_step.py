"""One step of an unrolled system: what a gradient estimator unrolls, and all that it knows of the system.

A system is written for a single unroll (`TruncatedStep`) and mapped over `num_tasks` of them by
`VectorizedTruncatedStep`. Estimators take a `VectorizedStep`: either that wrapper or, for learned optimizers,
`VectorizedLOptTruncatedStep`. Nothing here knows what theta is.
"""

import abc
import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from unspool.types import Batch, PRNGKey, PyTree, Scalar, Theta

OuterState = Any
UnrollState = PyTree


class ResidentData(NamedTuple):
    """Data that stays on the device: every step gets all of it and draws its own batch inside the compiled
    unroll.

    Attributes:
        arrays: any pytree of arrays.
    """

    arrays: PyTree


class TruncatedUnrollOut(NamedTuple):
    """What one step reports. Leaves have shape `[num_tasks]`, and `[steps, num_tasks]` after an unroll.

    Attributes:
        loss: float32; anything where `mask` is False.
        is_done: bool; the episode ends with this step. Either the step reports its last loss and the next one
            only resets, or this step itself is the (masked) reset.
        task_param: which task it was, leaves `[num_tasks, ...]`.
        iteration: int32, inner steps since the episode began.
        mask: bool; False marks a step without a loss, which is one that only resets.
    """

    loss: jax.Array
    is_done: jax.Array
    task_param: PyTree
    iteration: jax.Array
    mask: jax.Array


class TruncatedStep(abc.ABC):
    """One unroll of a system that depends on theta, step by step, with resets between episodes.

    Resets must not depend on theta or on losses: an estimator compares unrolls under perturbed thetas step by
    step, and is unbiased only if their episodes end together.
    """

    @abc.abstractmethod
    def outer_init(self, key: PRNGKey) -> Theta:
        """An initial theta: a pytree of floating-point arrays. Consumes `key`."""

    @abc.abstractmethod
    def init_step_state(self, theta: Theta, outer_state: OuterState, key: PRNGKey) -> UnrollState:
        """The state at the start of an episode. Consumes `key`."""

    @abc.abstractmethod
    def unroll_step(
        self, theta: Theta, unroll_state: UnrollState, key: PRNGKey, data: Batch, outer_state: OuterState
    ) -> tuple[UnrollState, TruncatedUnrollOut]:
        """One inner step, or a reset if the previous step ended its episode.

        Args:
            theta: the parameters under which this step is taken.
            unroll_state: from the previous step; the result has the same structure, shapes and dtypes.
            key: consumed. Both members of an antithetic pair get the same.
            data: what `get_batch` gave for this step, or the `ResidentData` of `resident_data`.
            outer_state: what of outer training a step may depend on.
        """

    def get_batch(self, steps: int) -> Batch | None:
        """Data for `steps` steps, leaves `[steps, ...]`, if it is streamed from the host; else None."""
        del steps
        return None

    def resident_data(self) -> ResidentData | None:
        """Data that every step indexes by itself, for systems whose data fits on the device; else None."""
        return None

    def meta_loss_batch(
        self, theta: Theta, unroll_state: UnrollState, key: PRNGKey, data: Batch, outer_state: OuterState
    ) -> Scalar:
        """The loss of a state on fresh outer data, without a step. Consumes `key`."""
        del theta, unroll_state, key, data, outer_state
        raise NotImplementedError(
            f"{type(self).__name__} has no meta_loss_batch; choose an objective other than last_recompute"
        )

    def label(self) -> str:
        """What metrics call the system."""
        return type(self).__name__


class VectorizedStep(abc.ABC):
    """`num_tasks` unrolls side by side: what estimators unroll. All leaves of a state lead with
    `[num_tasks]`.

    With `theta_is_vector`, leaves of theta lead with `[num_tasks]` too: each task has its own perturbed
    theta.
    """

    num_tasks: int

    @abc.abstractmethod
    def outer_init(self, key: PRNGKey) -> Theta:
        """An initial theta, for one. Consumes `key`."""

    @abc.abstractmethod
    def init_step_state(
        self,
        theta: Theta,
        outer_state: OuterState,
        key: PRNGKey,
        theta_is_vector: bool = False,
        num_steps_override: jax.Array | int | None = None,
    ) -> UnrollState:
        """States at the start of an episode; `num_steps_override` tells its length where the schedule does
        not.
        """

    @abc.abstractmethod
    def unroll_step(
        self,
        theta: Theta,
        unroll_state: UnrollState,
        key: PRNGKey,
        data: Batch,
        outer_state: OuterState,
        theta_is_vector: bool = False,
        override_num_steps: jax.Array | int | None = None,
    ) -> tuple[UnrollState, TruncatedUnrollOut]:
        """One step of every task. Consumes `key`: a key, or what `keys_of_steps` made of one."""

    def keys_of_steps(self, keys: PRNGKey) -> PyTree:
        """What `unroll_step` takes as `key` at each step, from one key per step `[steps]`.

        Called before an unroll: deriving the keys of all steps and tasks at once is far cheaper than a few at
        a time in between the steps. Consumes `keys`.
        """
        return keys

    @abc.abstractmethod
    def get_batch(self, steps: int | None = None) -> Batch | None:
        """Host data, leaves `[steps, num_tasks, ...]` (without the first axis if `steps` is None), or
        None.
        """

    @abc.abstractmethod
    def resident_data(self) -> ResidentData | None:
        """Data that lives on the device, or None."""

    @abc.abstractmethod
    def meta_loss_batch(
        self,
        theta: Theta,
        unroll_state: UnrollState,
        key: PRNGKey,
        data: Batch,
        outer_state: OuterState,
        theta_is_vector: bool = False,
    ) -> jax.Array:
        """Losses `[num_tasks]` of states on fresh outer data, without a step. Consumes `key`."""

    @abc.abstractmethod
    def label(self) -> str:
        """What metrics call the system."""


@dataclasses.dataclass(frozen=True)
class VectorizedTruncatedStep(VectorizedStep):
    """Maps a `TruncatedStep` over `num_tasks` independent unrolls.

    Attributes:
        truncated_step: the system, written for one unroll.
        num_tasks: how many run side by side.
    """

    truncated_step: TruncatedStep
    num_tasks: int

    def __post_init__(self) -> None:
        if self.num_tasks < 1:
            raise ValueError(
                f"VectorizedTruncatedStep(num_tasks={self.num_tasks}): num_tasks must be at least 1"
            )

    def outer_init(self, key: PRNGKey) -> Theta:
        return self.truncated_step.outer_init(key)

    def init_step_state(
        self,
        theta: Theta,
        outer_state: OuterState,
        key: PRNGKey,
        theta_is_vector: bool = False,
        num_steps_override: jax.Array | int | None = None,
    ) -> UnrollState:
        del num_steps_override  # a general system has no optimizer that wants to know
        keys = jax.random.split(key, self.num_tasks)
        init = jax.vmap(self.truncated_step.init_step_state, in_axes=(axis_of(theta_is_vector), None, 0))
        return init(theta, outer_state, keys)

    def unroll_step(
        self,
        theta: Theta,
        unroll_state: UnrollState,
        key: PRNGKey,
        data: Batch,
        outer_state: OuterState,
        theta_is_vector: bool = False,
        override_num_steps: jax.Array | int | None = None,
    ) -> tuple[UnrollState, TruncatedUnrollOut]:
        del override_num_steps
        keys = jax.random.split(key, self.num_tasks)
        step = jax.vmap(
            self.truncated_step.unroll_step,
            in_axes=(axis_of(theta_is_vector), 0, 0, self._data_axis(data), None),
        )
        state, out = step(theta, unroll_state, keys, data, outer_state)
        return state, out

    def get_batch(self, steps: int | None = None) -> Batch | None:
        batches = [
            self.truncated_step.get_batch(1 if steps is None else steps) for _ in range(self.num_tasks)
        ]
        if batches[0] is None:
            return None
        stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves, axis=1), *batches)
        return jax.tree.map(lambda leaf: leaf[0], stacked) if steps is None else stacked

    def resident_data(self) -> ResidentData | None:
        return self.truncated_step.resident_data()

    def meta_loss_batch(
        self,
        theta: Theta,
        unroll_state: UnrollState,
        key: PRNGKey,
        data: Batch,
        outer_state: OuterState,
        theta_is_vector: bool = False,
    ) -> jax.Array:
        keys = jax.random.split(key, self.num_tasks)
        losses = jax.vmap(
            self.truncated_step.meta_loss_batch,
            in_axes=(axis_of(theta_is_vector), 0, 0, self._data_axis(data), None),
        )
        return losses(theta, unroll_state, keys, data, outer_state)

    def label(self) -> str:
        return self.truncated_step.label()

    def _data_axis(self, data: Batch) -> int | None:
        return None if isinstance(data, ResidentData) else 0


def axis_of(is_vector: bool) -> int | None:
    """The `vmap` axis of an argument that is one per task, or one for all."""
    return 0 if is_vector else None
