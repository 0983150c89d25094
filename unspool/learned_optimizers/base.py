"""The base class of learned optimizers, and hand-designed rules with learned hyper-parameters."""

import abc
import dataclasses
import inspect

import jax.numpy as jnp
import optax

from unspool.config.arguments import check_decay, check_hashable, check_instance, check_positive
from unspool.optimizers.optax_opts import OptaxOptimizer
from unspool.optimizers.optimizer import Optimizer
from unspool.types import PRNGKey, Scalar, Theta

_LOGARITHM = ", theta holds its logarithm"
_ADAM_EPSILON_ROOT = 1e-8  # as in `unspool.optimizers.base.Adam`: keeps outer gradients finite


class LearnedOptimizer(abc.ABC):
    """A family of optimizers indexed by theta.

    One with plain configuration values is best written as a frozen dataclass: equal instances then share one
    compilation.
    """

    @abc.abstractmethod
    def init(self, key: PRNGKey) -> Theta:
        """Sample the initial theta; consumes `key`."""

    @abc.abstractmethod
    def opt_fn(self, theta: Theta, is_training: bool = False) -> Optimizer:
        """Return the optimizer with outer parameters `theta`, which may be traced; cheap and transformable.

        Args:
            theta: Outer parameters.
            is_training: Whether theta is being meta-trained, for learned optimizers that then behave
            differently.
        """

    def opt_in_training(self, theta: Theta) -> Optimizer:
        """Return `opt_fn(theta, is_training=True)`, or `opt_fn(theta)` if it has no such argument.

        Some of the tutorials' optimizers define `opt_fn(self, theta)`.
        """
        of_opt_fn = inspect.signature(self.opt_fn).parameters.values()
        knows_training = any(one.name == "is_training" or one.kind is one.VAR_KEYWORD for one in of_opt_fn)
        return self.opt_fn(theta, **({"is_training": True} if knows_training else {}))

    @property
    def name(self) -> str:
        """The name of the learned optimizer in reports."""
        return type(self).__name__


@dataclasses.dataclass(frozen=True)
class LearnableSGD(LearnedOptimizer):
    """Gradient descent; theta is the logarithm of the learning rate."""

    initial_lr: float = 0.01

    def __post_init__(self) -> None:
        check_positive(self, "initial_lr", _LOGARITHM)

    def init(self, key: PRNGKey) -> Theta:
        return {"log_lr": _log(self.initial_lr)}

    def opt_fn(self, theta: Theta, is_training: bool = False) -> Optimizer:
        return OptaxOptimizer(optax.sgd(jnp.exp(theta["log_lr"])))


@dataclasses.dataclass(frozen=True)
class LearnableSGDM(LearnedOptimizer):
    """Momentum; theta holds the logarithms of the learning rate and of one minus the momentum."""

    initial_lr: float = 0.01
    initial_momentum: float = 0.9

    def __post_init__(self) -> None:
        check_positive(self, "initial_lr", _LOGARITHM)
        check_decay(self, "initial_momentum")

    def init(self, key: PRNGKey) -> Theta:
        return {"log_lr": _log(self.initial_lr), "one_minus_momentum": _log(1 - self.initial_momentum)}

    def opt_fn(self, theta: Theta, is_training: bool = False) -> Optimizer:
        momentum = 1 - jnp.exp(theta["one_minus_momentum"])
        return OptaxOptimizer(optax.sgd(jnp.exp(theta["log_lr"]), momentum))


@dataclasses.dataclass(frozen=True)
class LearnableAdam(LearnedOptimizer):
    """Adam; theta holds the logarithms of the learning rate, of one minus each beta, and of epsilon.

    `use_summary` has no effect; it is accepted for code written for the tutorials.
    """

    initial_lr: float = 0.001
    initial_beta1: float = 0.9
    initial_beta2: float = 0.999
    initial_epsilon: float = 1e-8
    use_summary: bool = dataclasses.field(default=True, compare=False)

    def __post_init__(self) -> None:
        check_positive(self, "initial_lr", _LOGARITHM)
        check_decay(self, "initial_beta1")
        check_decay(self, "initial_beta2")
        check_positive(self, "initial_epsilon", _LOGARITHM)

    def init(self, key: PRNGKey) -> Theta:
        return {
            "log_lr": _log(self.initial_lr),
            "one_minus_beta1": _log(1 - self.initial_beta1),
            "one_minus_beta2": _log(1 - self.initial_beta2),
            "log_epsilon": _log(self.initial_epsilon),
        }

    def opt_fn(self, theta: Theta, is_training: bool = False) -> Optimizer:
        adam = optax.adam(
            learning_rate=jnp.exp(theta["log_lr"]),
            b1=1 - jnp.exp(theta["one_minus_beta1"]),
            b2=1 - jnp.exp(theta["one_minus_beta2"]),
            eps=jnp.exp(theta["log_epsilon"]),
            eps_root=_ADAM_EPSILON_ROOT,
        )
        return OptaxOptimizer(adam)


@dataclasses.dataclass(frozen=True)
class FixedOptimizer(LearnedOptimizer):
    """The fixed optimizer `opt`; theta is None."""

    opt: Optimizer

    def __post_init__(self) -> None:
        check_instance(self, "opt", Optimizer, "OptaxOptimizer makes one of an optax transformation")
        check_hashable(self, "opt")

    @property
    def name(self) -> str:
        return self.opt.name

    def init(self, key: PRNGKey) -> Theta:
        return None

    def opt_fn(self, theta: Theta, is_training: bool = False) -> Optimizer:
        return self.opt


def learned_optimizer_from_opt(opt: Optimizer) -> LearnedOptimizer:
    """Return `opt` as a learned optimizer with an empty theta, for baselines."""
    return FixedOptimizer(opt)


def _log(value: float) -> Scalar:
    return jnp.log(jnp.asarray(value, jnp.float32))
