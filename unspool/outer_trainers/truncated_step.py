"""One step of an unrolled system: what a gradient estimator unrolls, and all that it knows of the system.

A system is written for a single unroll (`TruncatedStep`) and mapped over `num_tasks` of them by
`VectorizedTruncatedStep`. Estimators take a `VectorizedStep`: either that wrapper or, for learned optimizers,
`VectorizedLOptTruncatedStep`. Nothing here knows what theta is: it may parametrise an optimizer, the
coefficients of a differential equation, a policy, or anything else that is unrolled.
"""

import abc
import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from unspool.arguments import check_hashable, check_instance, check_whole_number
from unspool.device_mesh import over_tasks
from unspool.outer_trainers.checks import check_arrays, check_scalar, check_unchanged
from unspool.outer_trainers.step_outputs import (
    EpisodesInExpectation,
    ResidentData,
    TruncatedUnrollOut,
    with_a_reset_step,
)
from unspool.types import Batch, PRNGKey, PyTree, Scalar, Theta

OuterState = Any
UnrollState = PyTree

__all__ = [
    "EpisodesInExpectation",
    "OuterState",
    "ResidentData",
    "TruncatedStep",
    "TruncatedUnrollOut",
    "UnrollState",
    "VectorizedStep",
    "VectorizedTruncatedStep",
    "axis_of",
    "with_a_reset_step",
]


class TruncatedStep(abc.ABC):
    """One unroll of a system that depends on theta, step by step, with resets between episodes.

    Everything here is about a single unroll, without a task axis, and must be a pure function of arrays that
    `vmap`, `jit` and `scan` (and for `TruncatedGrad`, `FullGrad` and `DODGE` differentiation) can transform.
    Configured by plain values, a system is best a frozen dataclass: equal ones then share one compilation.

    The state carries whatever the next step needs, the counter of the episode's steps included. An episode
    ends in one of three ways. Whichever a system chooses, it keeps to it:

    (a) The step with the last loss reports `is_done`, and the next step only resets, with `mask` False.
        An episode of T steps takes T + 1. So does `VectorizedLOptTruncatedStep`.
    (b) The step with the last loss reports nothing; the next one only resets, and it is that one which
        reports `is_done`, with `mask` False. T + 1 steps too. So does `SimpleLOptTruncatedStep`.
    (c) The step with the last loss reports `is_done` and returns the state of the next episode's beginning.
        An episode takes exactly T steps, so that truncations whose length divides T stay aligned with
        episodes. Best for systems written by hand, and allowed if `init_step_state` does not depend on
        theta: where it does, an estimator must know under which theta the beginning was made, and (a) or (b)
        tells.

    Two rules make estimates unbiased. When an episode ends must not depend on theta or on losses: antithetic
    unrolls are compared step by step, so their episodes must end together. And all randomness comes from
    `key`, which both members of an antithetic pair are given alike: what is not due to theta then cancels.

    A whole system, after (c):

        class Decay(TruncatedStep):
            def outer_init(self, key):
                return {"log_rate": jnp.float32(-3)}

            def init_step_state(self, theta, outer_state, key):
                return {"x": jnp.ones(()), "step": jnp.int32(0)}

            def unroll_step(self, theta, unroll_state, key, data, outer_state):
                x = unroll_state["x"] * (1 - jnp.exp(theta["log_rate"]))
                step = unroll_state["step"] + 1
                is_done = step >= 20
                beginning = self.init_step_state(theta, outer_state, key)
                moved = {"x": x, "step": step}
                state = jax.tree.map(lambda new, old: jnp.where(is_done, new, old), beginning, moved)
                return state, TruncatedUnrollOut(
                    loss=x**2, is_done=is_done, task_param=(), iteration=step, mask=jnp.bool_(True)
                )

    `VectorizedTruncatedStep(Decay(), num_tasks=8)` is what estimators take. Where a reset is costly,
    `unspool.rarely.rarely` computes it only when it is needed.

    Attributes:
        keeps_last_state: whether an episode's last state is there after its last step, which is so in (a) and
            (b). The objective "last_recompute" evaluates that state, and needs a system that says so.
    """

    keeps_last_state: ClassVar[bool] = False

    @abc.abstractmethod
    def outer_init(self, key: PRNGKey) -> Theta:
        """An initial theta: a pytree of floating-point arrays. Consumes `key`."""

    @abc.abstractmethod
    def init_step_state(self, theta: Theta, outer_state: OuterState, key: PRNGKey) -> UnrollState:
        """The state at the start of an episode: any pytree of arrays. Consumes `key`."""

    @abc.abstractmethod
    def unroll_step(
        self, theta: Theta, unroll_state: UnrollState, key: PRNGKey, data: Batch, outer_state: OuterState
    ) -> tuple[UnrollState, TruncatedUnrollOut]:
        """One inner step, or in (a) and (b) a reset if the previous step ended its episode.

        Args:
            theta: the parameters under which this step is taken.
            unroll_state: from the previous step; the result has the same structure, shapes and dtypes.
            key: consumed. Both members of an antithetic pair get the same.
            data: what `get_batch` gave for this step, or the `ResidentData` of `resident_data`.
            outer_state: what of outer training a step may depend on.

        Returns:
            `(state, out)`; leaves of `out` have shape `[]`.
        """

    def get_batch(self, steps: int) -> Batch | None:
        """Data for `steps` steps, leaves `[steps, ...]`, if it is streamed from the host; else None."""
        del steps
        return None

    def resident_data(self) -> ResidentData | None:
        """Data that every step indexes by itself, for systems whose data fits on the device; else None.

        A system that has neither this nor a `get_batch` has no data, and its steps are given an empty one.
        """
        return None

    def get_outer_batch(self, steps: int) -> Batch | None:
        """Data for `steps` calls of `meta_loss_batch` by hand, like `get_batch`, which is the default."""
        return self.get_batch(steps)

    def meta_loss_batch(
        self, theta: Theta, unroll_state: UnrollState, key: PRNGKey, data: Batch, outer_state: OuterState
    ) -> Scalar:
        """The loss of a state on fresh outer data, without a step. Consumes `key`."""
        del theta, unroll_state, key, data, outer_state
        raise NotImplementedError(
            f"{type(self).__name__} has no meta_loss_batch; choose an objective other than last_recompute"
        )

    def episodes(self, outer_state: OuterState) -> EpisodesInExpectation:
        """What is known of the episodes beforehand.

        The default is right, up to a constant factor of the gradient, for every system.
        """
        del outer_state
        return EpisodesInExpectation()

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

    @property
    def keeps_last_state(self) -> bool:
        """Whether an episode's last state is there after its last step, as in `TruncatedStep`."""
        return False

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

    def get_outer_batch(self, steps: int | None = None) -> Batch | None:
        """Host data for `meta_loss_batch` by hand, like `get_batch`, which is the default."""
        return self.get_batch(steps)

    def outer_batch_of(self, data: Batch) -> Batch:
        """What of a step's data `meta_loss_batch` is given where an estimator evaluates a last state."""
        return data

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

    def episodes(self, outer_state: OuterState) -> EpisodesInExpectation:
        """What is known of the episodes beforehand."""
        del outer_state
        return EpisodesInExpectation()

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
        check_whole_number(self, "num_tasks")
        check_instance(self, "truncated_step", TruncatedStep, "give the system, written for a single unroll")
        check_hashable(self, "truncated_step")

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
        init = over_tasks(self._init_one, (axis_of(theta_is_vector), None, 0))
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
        step = over_tasks(self._step_one, (axis_of(theta_is_vector), 0, 0, self._data_axis(data), None))
        state, out = step(theta, unroll_state, keys, data, outer_state)
        return state, out

    def get_batch(self, steps: int | None = None) -> Batch | None:
        return self._of_tasks(self.truncated_step.get_batch, steps)

    def get_outer_batch(self, steps: int | None = None) -> Batch | None:
        return self._of_tasks(self.truncated_step.get_outer_batch, steps)

    def _of_tasks(self, get_batch: Callable[[int], Batch | None], steps: int | None) -> Batch | None:
        batches = [get_batch(1 if steps is None else steps) for _ in range(self.num_tasks)]
        if batches[0] is None:
            return None
        stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves, axis=1), *batches)
        return jax.tree.map(lambda leaf: leaf[0], stacked) if steps is None else stacked

    def resident_data(self) -> ResidentData | None:
        resident = self.truncated_step.resident_data()
        streams = type(self.truncated_step).get_batch is not TruncatedStep.get_batch
        # A system without any data need not say so.
        return resident if resident is not None or streams else ResidentData(())

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
        loss = over_tasks(self._meta_loss_one, (axis_of(theta_is_vector), 0, 0, self._data_axis(data), None))
        losses: jax.Array = loss(theta, unroll_state, keys, data, outer_state)
        return losses

    @property
    def keeps_last_state(self) -> bool:
        return self.truncated_step.keeps_last_state

    def episodes(self, outer_state: OuterState) -> EpisodesInExpectation:
        return self.truncated_step.episodes(outer_state)

    def label(self) -> str:
        return self.truncated_step.label()

    def _data_axis(self, data: Batch) -> int | None:
        return None if isinstance(data, ResidentData) else 0

    # Below, everything is about one task; `vmap` above adds the axis.

    def _init_one(self, theta: Theta, outer_state: OuterState, key: PRNGKey) -> UnrollState:
        state = self.truncated_step.init_step_state(theta, outer_state, key)
        remedy = "keep what is no array in the system's own fields"
        check_arrays(f"{self._system}.init_step_state: the state", state, remedy)
        return state

    def _step_one(
        self, theta: Theta, unroll_state: UnrollState, key: PRNGKey, data: Batch, outer_state: OuterState
    ) -> tuple[UnrollState, TruncatedUnrollOut]:
        returned = self.truncated_step.unroll_step(theta, unroll_state, key, data, outer_state)
        what = f"{self._system}.unroll_step"
        state, out = _state_and_out(what, returned)
        check_unchanged(f"{what}: the state", unroll_state, state)
        _check_out(what, out)
        return state, out

    def _meta_loss_one(
        self, theta: Theta, unroll_state: UnrollState, key: PRNGKey, data: Batch, outer_state: OuterState
    ) -> Scalar:
        loss = self.truncated_step.meta_loss_batch(theta, unroll_state, key, data, outer_state)
        check_scalar(
            f"{self._system}.meta_loss_batch: the loss", loss, "floating-point number", _TAKE_THE_MEAN
        )
        return loss

    @property
    def _system(self) -> str:
        return type(self.truncated_step).__name__


_TAKE_THE_MEAN = "take its mean, say; the axis of tasks is added by vmap"


def _state_and_out(what: str, returned: Any) -> tuple[UnrollState, TruncatedUnrollOut]:
    match returned:
        case (state, TruncatedUnrollOut() as out):
            return state, out
        case _ if type(returned) is tuple:
            given = f"({', '.join(type(part).__name__ for part in returned)})"
        case _:
            given = f"a {type(returned).__name__}"
    raise TypeError(f"{what} returned {given}: return (state, TruncatedUnrollOut(loss, is_done, ...))")


def _check_out(what: str, out: TruncatedUnrollOut) -> None:
    check_scalar(f"{what}: loss", out.loss, "floating-point number", _TAKE_THE_MEAN)
    check_scalar(f"{what}: is_done", out.is_done, "bool", "compare the counter with the episode's length")
    check_scalar(f"{what}: mask", out.mask, "bool", "False marks a step that only resets, True any other")
    check_scalar(f"{what}: iteration", out.iteration, "integer", "count the episode's steps")
    check_arrays(f"{what}: task_param", out.task_param, "return () where there is nothing to tell")
    if out.episode_length is not None:
        check_scalar(f"{what}: episode_length", out.episode_length, "integer", "or None if unknown")


def axis_of(is_vector: bool) -> int | None:
    """The `vmap` axis of an argument that is one per task, or one for all."""
    return 0 if is_vector else None
