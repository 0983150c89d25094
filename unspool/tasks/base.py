"""Inner problems: a `Task` is a loss to minimise, a `TaskFamily` a distribution of tasks of equal shapes.

Properties that change the compiled program (an architecture, a batch size, a data set) are the family's
static configuration. Other properties (a target, a scale) are sampled as a pytree of arrays that `vmap` can
batch.
"""

import abc
import dataclasses
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Num

from unspool.config.arguments import check_hashable, check_instance
from unspool.tasks.datasets.base import Datasets
from unspool.types import Aux, Batch, ModelState, Params, PRNGKey, Scalar, TaskParams

_LOSSES = ("loss", "loss_with_state", "loss_and_aux", "loss_with_state_and_aux")
_INITS = ("init", "init_with_state")


class Task(abc.ABC):  # noqa: B024 (abstract, but which of its forms a task defines is the task's choice)
    """One inner problem.

    Define `init` and `loss`, or one of their extended forms: `_with_state` for a task with a model state
    (such as running averages), and `_and_aux` for one that reports named scalars. The most general form calls
    the one that is defined, and the others call the most general form. Callers differentiate
    `loss_with_state` and read aux values from `loss_with_state_and_aux`.

    A task with plain configuration values is best written as a frozen dataclass: equal tasks then share one
    compilation. Data must not be in its fields; it is accessed through `datasets`.
    """

    # Type checkers see a read-only property, so that a property, a class attribute or an assignment in
    # `__init__` may define it. At run time it is a plain attribute, because a property could not be assigned.
    if TYPE_CHECKING:

        @property
        def datasets(self) -> Datasets | None:
            """The data of this task, or None if its loss needs none."""
    else:
        datasets = None

    def __init_subclass__(cls, **kwargs: object) -> None:
        """Reject a class whose forms of `init` or `loss` would give different results."""
        super().__init_subclass__(**kwargs)
        for group in (_LOSSES, _INITS):
            own = [name for name in group if name in vars(cls)]
            inherited = [name for name in group if name not in own and _is_overridden(cls, name)]
            if own and inherited:
                raise TypeError(
                    f"{cls.__name__} overrides {', '.join(own)} but inherits {', '.join(inherited)}, "
                    "whose callers would not see the change: override them as well"
                )

    @property
    def name(self) -> str:
        """The name of the task in reports."""
        return type(self).__name__

    def init(self, key: PRNGKey) -> Params:
        """Sample initial parameters of a task without model state; consumes `key`."""
        params, state = self.init_with_state(key)
        if jax.tree.leaves(state):
            raise TypeError(f"{self.name}.init: this task has a model state, call init_with_state")
        return params

    def init_with_state(self, key: PRNGKey) -> tuple[Params, ModelState]:
        """Sample initial parameters and model state; consumes `key`."""
        if not _is_overridden(type(self), "init"):
            raise NotImplementedError(f"{self.name} must define init or init_with_state")
        return self.init(key), None

    def loss(self, params: Params, key: PRNGKey, data: Batch) -> Scalar:
        """Return the loss of `params` on the batch `data`; consumes `key`."""
        return self.loss_with_state_and_aux(params, None, key, data)[0]

    def loss_with_state(
        self, params: Params, state: ModelState, key: PRNGKey, data: Batch
    ) -> tuple[Scalar, ModelState]:
        """Return the loss, which the inner loop differentiates, and the next model state; consumes `key`."""
        loss, state, _ = self.loss_with_state_and_aux(params, state, key, data)
        return loss, state

    def loss_and_aux(self, params: Params, key: PRNGKey, data: Batch) -> tuple[Scalar, Aux]:
        """Return the loss and named scalars to report; consumes `key`."""
        loss, _, aux = self.loss_with_state_and_aux(params, None, key, data)
        return loss, aux

    def loss_with_state_and_aux(
        self, params: Params, state: ModelState, key: PRNGKey, data: Batch
    ) -> tuple[Scalar, ModelState, Aux]:
        """Return the loss, the next model state and named scalars; consumes `key`."""
        has_state, has_aux, has_loss = (
            _is_overridden(type(self), form) for form in ("loss_with_state", "loss_and_aux", "loss")
        )
        if has_state and not has_aux:
            return *self.loss_with_state(params, state, key, data), {}
        if not has_aux and not has_loss:
            raise NotImplementedError(f"{self.name} must define one of {', '.join(_LOSSES)}")
        if jax.tree.leaves(state):
            missing = "loss_with_state_and_aux" if has_aux else "loss_with_state"
            raise TypeError(f"{self.name} was given a model state but does not define {missing}")
        loss, aux = self.loss_and_aux(params, key, data) if has_aux else (self.loss(params, key, data), {})
        return loss, state, aux

    def normalizer(self, loss: Scalar) -> Scalar:
        """Map a loss to the scale of meta-training; overrides may bound diverged losses."""
        return loss


def _is_overridden(task_type: type[Task], method: str) -> bool:
    return getattr(task_type, method) is not getattr(Task, method)


class TaskFamily(abc.ABC):
    """A distribution of tasks that share one compiled program.

    `sample` draws the part of a task that may be traced and batched; `task_fn` maps it to a `Task`.
    """

    if TYPE_CHECKING:  # as in Task

        @property
        def datasets(self) -> Datasets | None:
            """The data that every task of the family trains on, or None."""
    else:
        datasets = None

    @property
    def eval_datasets(self) -> Datasets | None:
        """The data that evaluation reads; the training data unless overridden."""
        return self.datasets

    @property
    def name(self) -> str:
        """The name of the family in reports."""
        return type(self).__name__

    @abc.abstractmethod
    def sample(self, key: PRNGKey) -> TaskParams:
        """Sample the parameters of one task, a pytree of arrays; consumes `key`."""

    @abc.abstractmethod
    def task_fn(self, task_params: TaskParams) -> Task:
        """Return the task with the parameters `task_params`, which may be traced."""

    def eval_task_fn(self, task_params: TaskParams) -> Task:
        """Return the task for evaluation; the training task unless overridden."""
        return self.task_fn(task_params)

    def sample_task(self, key: PRNGKey) -> Task:
        """Sample one task; consumes `key`."""
        return self.task_fn(self.sample(key))


@dataclasses.dataclass(frozen=True)
class SingleTaskFamily(TaskFamily):
    """The family that consists of `task` only."""

    task: Task
    label: str | None = None
    eval_task: Task | None = None

    def __post_init__(self) -> None:
        for field in ("task", "eval_task"):
            if field == "task" or self.eval_task is not None:
                check_instance(self, field, Task, "give an instance of one")
                check_hashable(self, field)

    @property
    def datasets(self) -> Datasets | None:
        return self.task.datasets

    @property
    def eval_datasets(self) -> Datasets | None:
        return self.eval_task_fn(()).datasets

    @property
    def name(self) -> str:
        return self.label or self.task.name

    def sample(self, key: PRNGKey) -> TaskParams:
        return jnp.zeros((), jnp.int32)

    def task_fn(self, task_params: TaskParams) -> Task:
        return self.task

    def eval_task_fn(self, task_params: TaskParams) -> Task:
        return self.task if self.eval_task is None else self.eval_task


def single_task_to_family(task: Task, name: str | None = None, eval_task: Task | None = None) -> TaskFamily:
    """Return the family that always samples `task`, evaluated on `eval_task` if given."""
    return SingleTaskFamily(task, name, eval_task)


def sample_single_task_family(key: PRNGKey, task_family: TaskFamily | Task) -> TaskFamily:
    """Return `task_family`, or the family of a single task; for code that samples families.

    Raises:
        TypeError: `task_family` is neither a `TaskFamily` nor a `Task`.
    """
    del key
    if isinstance(task_family, Task):
        return single_task_to_family(task_family)
    if not isinstance(task_family, TaskFamily):
        raise TypeError(
            f"sample_single_task_family(task_family={task_family!r}): give a TaskFamily or a Task instance"
        )
    return task_family


def softmax_cross_entropy(
    *, logits: Float[Array, "*batch classes"], labels: Num[Array, "*batch classes"]
) -> Float[Array, "*batch"]:
    """Return the cross entropy, in nats, of one-hot `labels` `[..., classes]` under `logits`, as `[...]`."""
    return -jnp.sum(labels * jax.nn.log_softmax(logits, axis=-1), axis=-1)
