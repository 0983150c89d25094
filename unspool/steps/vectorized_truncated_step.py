"""A system written for one unroll, mapped over `num_tasks` unrolls."""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from unspool.config.arguments import check_hashable, check_instance, check_whole_number
from unspool.device_mesh import over_tasks
from unspool.estimates.checks import check_arrays, check_scalar, check_unchanged
from unspool.steps.step_outputs import EpisodesInExpectation, ResidentData, TruncatedUnrollOut
from unspool.steps.truncated_step import TruncatedStep
from unspool.steps.vectorized_step import StepContext, VectorizedStep
from unspool.types import Batch, OuterState, PRNGKey, Scalar, Theta, UnrollState

_TAKE_THE_MEAN = "for example, take its mean; vmap adds the axis of tasks"


@dataclasses.dataclass(frozen=True)
class VectorizedTruncatedStep(VectorizedStep):
    """A `TruncatedStep`, written for one unroll, mapped over `num_tasks` independent unrolls."""

    truncated_step: TruncatedStep
    num_tasks: int

    def __post_init__(self) -> None:
        check_whole_number(self, "num_tasks")
        check_instance(self, "truncated_step", TruncatedStep, "give the system, written for a single unroll")
        check_hashable(self, "truncated_step")

    @property
    def keeps_last_state(self) -> bool:
        return self.truncated_step.keeps_last_state

    def outer_init(self, key: PRNGKey) -> Theta:
        return self.truncated_step.outer_init(key)

    def init_tasks(self, theta: Theta, key: PRNGKey, context: StepContext) -> UnrollState:
        init = over_tasks(self._init_one, (context.theta_axis, None, 0))
        return init(theta, context.outer_state, jax.random.split(key, self.num_tasks))

    def step_tasks(
        self, theta: Theta, state: UnrollState, key: PRNGKey, data: Batch, context: StepContext
    ) -> tuple[UnrollState, TruncatedUnrollOut]:
        step = over_tasks(self._step_one, (context.theta_axis, 0, 0, _axis_of_tasks(data), None))
        keys = jax.random.split(key, self.num_tasks)
        state, out = step(theta, state, keys, data, context.outer_state)
        return state, out

    def meta_losses(
        self, theta: Theta, state: UnrollState, key: PRNGKey, data: Batch, context: StepContext
    ) -> Float[Array, " tasks"]:
        loss = over_tasks(self._meta_loss_one, (context.theta_axis, 0, 0, _axis_of_tasks(data), None))
        keys = jax.random.split(key, self.num_tasks)
        losses: jax.Array = loss(theta, state, keys, data, context.outer_state)
        return losses

    def keys_of_steps(self, keys: PRNGKey) -> PRNGKey:
        return keys

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

    def outer_batch_of(self, data: Batch) -> Batch:
        return data

    def resident_data(self) -> ResidentData | None:
        resident = self.truncated_step.resident_data()
        streams = type(self.truncated_step).get_batch is not TruncatedStep.get_batch
        # A system without data need not define `resident_data`.
        return resident if resident is not None or streams else ResidentData(())

    def episodes(self, outer_state: OuterState) -> EpisodesInExpectation:
        return self.truncated_step.episodes(outer_state)

    def label(self) -> str:
        return self.truncated_step.label()

    # The methods below handle one task; `over_tasks` above adds the axis of tasks.

    def _init_one(self, theta: Theta, outer_state: OuterState, key: PRNGKey) -> UnrollState:
        state = self.truncated_step.init_step_state(theta, outer_state, key)
        remedy = "keep other values in the system's own fields"
        check_arrays(f"{self._name}.init_step_state: the state", state, remedy)
        return state

    def _step_one(
        self, theta: Theta, state: UnrollState, key: PRNGKey, data: Batch, outer_state: OuterState
    ) -> tuple[UnrollState, TruncatedUnrollOut]:
        what = f"{self._name}.unroll_step"
        returned = self.truncated_step.unroll_step(theta, state, key, data, outer_state)
        following, out = _state_and_out(what, returned)
        check_unchanged(f"{what}: the state", state, following)
        _check_out(what, out)
        return following, out

    def _meta_loss_one(
        self, theta: Theta, state: UnrollState, key: PRNGKey, data: Batch, outer_state: OuterState
    ) -> Scalar:
        loss = self.truncated_step.meta_loss_batch(theta, state, key, data, outer_state)
        what = f"{self._name}.meta_loss_batch: the loss"
        check_scalar(what, loss, "floating-point number", _TAKE_THE_MEAN)
        return loss

    @property
    def _name(self) -> str:
        return type(self.truncated_step).__name__


def _axis_of_tasks(data: Batch) -> int | None:
    return None if isinstance(data, ResidentData) else 0


def _state_and_out(what: str, returned: object) -> tuple[UnrollState, TruncatedUnrollOut]:
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
    check_arrays(f"{what}: task_param", out.task_param, "return () if the system has none")
    if out.episode_length is not None:
        check_scalar(f"{what}: episode_length", out.episode_length, "integer", "or None if unknown")
