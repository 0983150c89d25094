"""Inner training: initialisation, update and evaluation of a task with an optimizer.

All code that trains tasks (a learned optimizer's step, training curves) uses these functions, so tasks and
optimizers always get the same keys and arguments.
"""

from typing import NamedTuple

import jax

from unspool.estimates.checks import check_scalar, check_unchanged
from unspool.optimizers.optimizer import Optimizer, OptState
from unspool.params import as_params
from unspool.tasks.base import Task
from unspool.types import Batch, ModelState, Params, PRNGKey, Scalar, ScalarLike

_TAKE_THE_MEAN = "for example, take its mean over the batch"


class TaskLosses(NamedTuple):
    """The loss to differentiate `[]`, the loss to report `[]` (the same, or an aux value of the task), and
    the next model state.
    """

    trained: Scalar
    reported: Scalar
    model_state: ModelState


def initial_opt_state(
    optimizer: Optimizer, task: Task, params_key: PRNGKey, optimizer_key: PRNGKey, num_steps: ScalarLike
) -> OptState:
    """Return the optimizer state with new parameters, for `num_steps` updates. Consumes both keys.

    Raises:
        TypeError: the parameters are not floating-point arrays.
    """
    params, model_state = task.init_with_state(params_key)
    params = as_params(params, f"{task.name}: params")
    return optimizer.init(params, model_state=model_state, num_steps=num_steps, key=optimizer_key)


def updated(
    optimizer: Optimizer,
    task: Task,
    opt_state: OptState,
    keys: tuple[PRNGKey, PRNGKey],
    batch: Batch,
    aux_key: str | None = None,
) -> tuple[OptState, Scalar]:
    """Update the inner parameters; return the next state and the reported loss before the update.

    Consumes both keys: one for the loss and one for the update. With `aux_key`, that aux value of the task is
    reported instead of the loss.

    Raises:
        TypeError: a loss is not one number, or a state changes structure, shapes or dtypes.
    """
    loss_key, update_key = keys
    params, model_state = optimizer.get_params_state(opt_state)

    def objective(params: Params) -> tuple[Scalar, TaskLosses]:
        losses = losses_of(task, params, model_state, loss_key, batch, aux_key)
        return losses.trained, losses

    (_, losses), grad = jax.value_and_grad(objective, has_aux=True)(params)
    check_unchanged(f"{task.name}: the model state", model_state, losses.model_state)
    following = optimizer.update(
        opt_state, grad, loss=losses.trained, model_state=losses.model_state, key=update_key
    )
    check_unchanged(f"{optimizer.name}.update: the state", opt_state, following)
    return following, losses.reported


def evaluated(
    optimizer: Optimizer,
    task: Task,
    opt_state: OptState,
    key: PRNGKey,
    batch: Batch,
    aux_key: str | None = None,
) -> Scalar:
    """Return the loss, or the aux value, of the current inner parameters. Consumes `key`."""
    params, model_state = optimizer.get_params_state(opt_state)
    return losses_of(task, params, model_state, key, batch, aux_key).reported


def losses_of(
    task: Task, params: Params, model_state: ModelState, key: PRNGKey, batch: Batch, aux_key: str | None
) -> TaskLosses:
    """Return the losses of `params`. Consumes `key`.

    Raises:
        ValueError: the task has no aux value `aux_key`.
        TypeError: a loss is not one floating-point number.
    """
    if aux_key is None:
        loss, model_state = task.loss_with_state(params, model_state, key, batch)
        check_scalar(f"{task.name}: the loss", loss, "floating-point number", _TAKE_THE_MEAN)
        return TaskLosses(loss, loss, model_state)
    loss, model_state, aux = task.loss_with_state_and_aux(params, model_state, key, batch)
    if aux_key not in aux:
        raise ValueError(
            f"VectorizedLOptTruncatedStep(meta_loss_with_aux_key={aux_key!r}): {task.name} reports "
            f"{sorted(aux) or 'no aux values'}"
        )
    for what, value in (("the loss", loss), (f"aux {aux_key!r}", aux[aux_key])):
        check_scalar(f"{task.name}: {what}", value, "floating-point number", _TAKE_THE_MEAN)
    return TaskLosses(loss, aux[aux_key], model_state)
