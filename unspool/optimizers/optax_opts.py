"""Optimizers that are optax gradient transformations."""

import abc
import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import jax.numpy as jnp
import optax
from jaxtyping import Array, Int

from unspool.config.arguments import check_decay, check_not_negative
from unspool.optimizers.optimizer import Optimizer, carried_model_state
from unspool.params import as_params
from unspool.stable_types import strongly_typed, typed_like
from unspool.types import ModelState, Params, PyTree, ScalarLike

LearningRate: TypeAlias = float | Callable[[Any], Any]
"""A number, or an optax schedule of the iteration."""


class OptaxState(NamedTuple):
    """The state of every optimizer of this module."""

    params: Params
    state: ModelState
    optax_opt_state: PyTree
    iteration: Int[Array, ""]

    def replace(self, **changes: Any) -> "OptaxState":
        """Return a copy with some fields changed."""
        return self._replace(**changes)


class OptaxBackedOptimizer(Optimizer):
    """An optimizer defined by an optax transformation."""

    @abc.abstractmethod
    def transformation(self) -> optax.GradientTransformation:
        """Return the transformation of gradients to updates."""

    def init(
        self, params: Params, model_state: ModelState = None, *_: object, **unused: object
    ) -> OptaxState:
        params, model_state = as_params(params), strongly_typed(model_state)
        optax_opt_state = strongly_typed(self.transformation().init(params))
        return OptaxState(params, model_state, optax_opt_state, jnp.zeros((), jnp.int32))

    def update(
        self,
        opt_state: OptaxState,
        grad: Params,
        loss: ScalarLike | None = None,
        model_state: ModelState = None,
        *_: object,
        **unused: object,
    ) -> OptaxState:
        transformation = optax.with_extra_args_support(self.transformation())
        updates, optax_opt_state = transformation.update(
            strongly_typed(grad), opt_state.optax_opt_state, opt_state.params, value=loss
        )
        return OptaxState(
            params=typed_like(optax.apply_updates(opt_state.params, updates), opt_state.params),
            state=carried_model_state(opt_state.state, model_state),
            optax_opt_state=typed_like(optax_opt_state, opt_state.optax_opt_state),
            iteration=opt_state.iteration + 1,
        )


@dataclasses.dataclass(frozen=True)
class OptaxOptimizer(OptaxBackedOptimizer):
    """Any optax transformation as an `Optimizer`; transformations that take `value` get the loss."""

    opt: optax.GradientTransformation

    def __post_init__(self) -> None:
        is_transformation = callable(getattr(self.opt, "init", None)) and callable(
            getattr(self.opt, "update", None)
        )
        if not is_transformation or isinstance(self.opt, type | Optimizer):
            raise TypeError(
                f"OptaxOptimizer(opt={self.opt!r}): it must be an optax transformation, as optax.adam(1e-3) "
                "makes; an Optimizer of this library needs no wrapping"
            )

    def transformation(self) -> optax.GradientTransformation:
        return self.opt


@dataclasses.dataclass(frozen=True)
class SGD(OptaxBackedOptimizer):
    """Gradient descent."""

    learning_rate: LearningRate = 0.01

    def __post_init__(self) -> None:
        check_learning_rate(self)

    def transformation(self) -> optax.GradientTransformation:
        return optax.sgd(self.learning_rate)


@dataclasses.dataclass(frozen=True)
class SGDM(OptaxBackedOptimizer):
    """Gradient descent with heavy-ball momentum."""

    learning_rate: LearningRate = 0.01
    momentum: float = 0.9

    def __post_init__(self) -> None:
        check_learning_rate(self)
        check_decay(self, "momentum")

    def transformation(self) -> optax.GradientTransformation:
        return optax.sgd(self.learning_rate, self.momentum)


@dataclasses.dataclass(frozen=True)
class Adam(OptaxBackedOptimizer):
    """Adam (Kingma & Ba 2015), with `epsilon_root` inside the square root.

    Unlike in optax, the default of `epsilon_root` is not 0: outer gradients are taken through updates, and it
    keeps the derivative of an update finite if the second moment is zero.
    """

    learning_rate: LearningRate = 0.01
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    epsilon_root: float = 1e-8

    def __post_init__(self) -> None:
        check_learning_rate(self)
        check_decay(self, "beta1", "beta2")
        check_not_negative(self, "epsilon", "epsilon_root")

    def transformation(self) -> optax.GradientTransformation:
        return optax.adam(self.learning_rate, self.beta1, self.beta2, self.epsilon, self.epsilon_root)


@dataclasses.dataclass(frozen=True)
class AdamW(OptaxBackedOptimizer):
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019)."""

    learning_rate: LearningRate = 0.01
    b1: float = 0.9
    b2: float = 0.999
    eps: float = 1e-8
    eps_root: float = 0.0
    weight_decay: float = 1e-4

    def __post_init__(self) -> None:
        check_learning_rate(self)
        check_decay(self, "b1", "b2")
        check_not_negative(self, "eps", "eps_root", "weight_decay")

    def transformation(self) -> optax.GradientTransformation:
        return optax.adamw(
            self.learning_rate, self.b1, self.b2, self.eps, self.eps_root, weight_decay=self.weight_decay
        )


@dataclasses.dataclass(frozen=True)
class RMSProp(OptaxBackedOptimizer):
    """RMSProp (Tieleman & Hinton 2012)."""

    learning_rate: LearningRate = 0.01
    decay: float = 0.9
    epsilon: float = 1e-8
    momentum: float = 0.0
    nesterov: bool = False

    def __post_init__(self) -> None:
        check_learning_rate(self)
        check_decay(self, "decay", "momentum")
        check_not_negative(self, "epsilon")

    def transformation(self) -> optax.GradientTransformation:
        return optax.rmsprop(
            self.learning_rate, self.decay, self.epsilon, momentum=self.momentum, nesterov=self.nesterov
        )


def check_learning_rate(optimizer: Any) -> None:
    """Reject a learning rate that is neither a schedule nor a finite number of at least 0."""
    if not callable(optimizer.learning_rate):
        check_not_negative(optimizer, "learning_rate")
