"""The base class of inner and outer optimizers: functions of a state that holds the whole training run."""

import abc
import dataclasses
from typing import Any, TypeAlias

from unspool.params import as_params
from unspool.stable_types import typed_like
from unspool.types import ModelState, Params, PRNGKey, PyTree, ScalarLike

OptState: TypeAlias = PyTree
"""An optimizer's state, including parameters and model state; has `.iteration`, an int32 scalar."""


class Optimizer(abc.ABC):
    """An optimizer of parameters by gradients.

    The state holds the parameters, the task's model state and the optimizer's accumulators, so it is the
    whole state of a training run. It is a pytree whose structure and dtypes updates do not change. All
    arguments after `params` and `grad` are passed by keyword, and an optimizer ignores those that it does not
    use.
    """

    @abc.abstractmethod
    def init(
        self,
        params: Params,
        model_state: ModelState = None,
        num_steps: ScalarLike | None = None,
        key: PRNGKey | None = None,
        **kwargs: Any,
    ) -> OptState:
        """Return the initial state.

        Args:
            params: Initial parameters.
            model_state: The task's initial model state, or None.
            num_steps: Number of updates planned, for optimizers with schedules; may be traced.
            key: Consumed by optimizers that start from a random state.
            **kwargs: Other values that the caller has; ignored unless the optimizer documents them.
        """

    @abc.abstractmethod
    def update(
        self,
        opt_state: OptState,
        grad: Params,
        loss: ScalarLike | None = None,
        model_state: ModelState = None,
        key: PRNGKey | None = None,
        **kwargs: Any,
    ) -> OptState:
        """Return the state after one step along `grad`.

        Args:
            opt_state: The state before the step.
            grad: Gradient of the loss at `get_params(opt_state)`, of the same structure.
            loss: The loss that `grad` is the gradient of, for optimizers that use it.
            model_state: The task's model state after that loss; None leaves the state's unchanged.
            key: Consumed by optimizers that are random.
            **kwargs: Other values that the caller has; ignored unless the optimizer documents them.
        """

    @property
    def name(self) -> str:
        """The name of the optimizer in reports."""
        return type(self).__name__

    def get_params(self, state: OptState) -> Params:
        """Return the parameters in `state`."""
        return state.params

    def get_state(self, state: OptState) -> ModelState:
        """Return the model state in `state`."""
        return state.state

    def get_params_state(self, state: OptState) -> tuple[Params, ModelState]:
        """Return the parameters and the model state in `state`."""
        return self.get_params(state), self.get_state(state)

    def set_params(self, state: OptState, params: Params) -> OptState:
        """Return `state`, a NamedTuple or a dataclass, with only its parameters replaced.

        Raises:
            TypeError: a leaf of `params` is not floating-point.
        """
        params = as_params(params)
        if hasattr(state, "_replace"):
            return state._replace(params=params)
        return dataclasses.replace(state, params=params)


def carried_model_state(old: ModelState, new: ModelState) -> ModelState:
    """Return the next model state after an update with `new`: `old` if `new` is None."""
    return old if new is None else typed_like(new, old)
