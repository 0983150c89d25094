"""Inner problems with one parameter, whose losses can be computed by hand."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from unspool.learned_optimizers.base import LearnedOptimizer
from unspool.optimizers.optimizer import Optimizer
from unspool.tasks.base import Task, TaskFamily
from unspool.tasks.datasets.base import Datasets, datasets_from
from unspool.types import Aux, Batch, ModelState, Params, PRNGKey, Scalar, TaskParams, Theta

VALUE_OF_SPLIT = {"train": 1.0, "inner_valid": 2.0, "outer_valid": 3.0, "test": 4.0}


@functools.cache
def split_datasets() -> Datasets:
    """Return splits in which every example is the number of the split."""
    return datasets_from(lambda split: np.full((8,), VALUE_OF_SPLIT[split], np.float32), batch_size=4)


@dataclasses.dataclass(frozen=True)
class FollowTheData(Task):
    """`(x - mean(data))^2` from x = 0, with the aux value `error`; the normalizer halves."""

    @property
    def datasets(self) -> Datasets:
        return split_datasets()

    def init(self, key: PRNGKey) -> Params:
        return jnp.zeros(())

    def loss_and_aux(self, params: Params, key: PRNGKey, data: Batch) -> tuple[Scalar, Aux]:
        error = params - jnp.mean(data)
        return error**2, {"error": error}

    def normalizer(self, loss: Scalar) -> Scalar:
        return loss / 2


@dataclasses.dataclass(frozen=True)
class CountingTask(Task):
    """A task whose model state counts loss evaluations; the loss is that count plus `(x - 1)^2`, from x =
    0.
    """

    def init_with_state(self, key: PRNGKey) -> tuple[Params, ModelState]:
        return jnp.zeros(()), {"losses": jnp.zeros(())}

    def loss_with_state(
        self, params: Params, state: ModelState, key: PRNGKey, data: Batch
    ) -> tuple[Scalar, ModelState]:
        return (params - 1) ** 2 + state["losses"], {"losses": state["losses"] + 1}


@dataclasses.dataclass(frozen=True, eq=False)
class Scaled(Task):
    """`scale` times `(x - 1)^2`, from x = 0."""

    scale: jax.Array

    def init(self, key: PRNGKey) -> Params:
        return jnp.zeros(())

    def loss(self, params: Params, key: PRNGKey, data: Batch) -> Scalar:
        return (params - 1) ** 2

    def normalizer(self, loss: Scalar) -> Scalar:
        return self.scale * loss


@dataclasses.dataclass(frozen=True)
class ScaledFamily(TaskFamily):
    """`Scaled` with random factors."""

    def sample(self, key: PRNGKey) -> TaskParams:
        return jax.random.uniform(key, (), minval=1.0, maxval=10.0)

    def task_fn(self, task_params: TaskParams) -> Task:
        return Scaled(task_params)


@dataclasses.dataclass(frozen=True)
class Position(Task):
    """A task with the loss x, from x = 0."""

    def init(self, key: PRNGKey) -> Params:
        return jnp.zeros(())

    def loss(self, params: Params, key: PRNGKey, data: Batch) -> Scalar:
        return params


@dataclasses.dataclass(frozen=True)
class StepsOfTheLength(LearnedOptimizer):
    """A learned optimizer that adds the number of planned updates to x at each update. Theta has no
    effect.
    """

    def init(self, key: PRNGKey) -> Theta:
        return {"unused": jnp.zeros(())}

    def opt_fn(self, theta: Theta, is_training: bool = False) -> Optimizer:
        return _AddsTheLength()


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class LengthState:
    """Parameters, and the number of planned updates passed to the optimizer."""

    params: Params
    state: ModelState
    num_steps: jax.Array
    iteration: jax.Array


@dataclasses.dataclass(frozen=True)
class _AddsTheLength(Optimizer):
    def init(self, params: Params, **known: Any) -> LengthState:
        num_steps = jnp.asarray(known["num_steps"], jnp.float32)
        return LengthState(params, known["model_state"], num_steps, jnp.zeros((), jnp.int32))

    def update(self, opt_state: LengthState, grad: Params, **known: Any) -> LengthState:
        return dataclasses.replace(
            opt_state,
            params=opt_state.params + opt_state.num_steps,
            iteration=opt_state.iteration + 1,
        )
