"""NAdamW: Adam with Nesterov momentum and two kinds of weight decay (Metz et al. 2020)."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int

from unspool.config.arguments import check_decay, check_not_negative
from unspool.optimizers.optax_opts import LearningRate, OptaxBackedOptimizer, check_learning_rate
from unspool.types import Params, PyTree, Scalar


class NAdamWState(NamedTuple):
    """Moments of the gradient, with the structure of the parameters."""

    iteration: Int[Array, ""]
    mu: Params
    nu: Params


@dataclasses.dataclass(frozen=True)
class NAdamW(OptaxBackedOptimizer):
    """NAdamW in the form of "Using a thousand optimization tasks to learn hyperparameter search strategies".

    With m and v the moments of g + `l2_weight_decay` params, a step subtracts

        lr_t (m' / (sqrt(v) + epsilon) + `adamw_weight_decay` params),

    where m' is m looked ahead by one step if `use_nesterov`, and lr_t is the learning rate, times
    sqrt(1 - beta2^t) / (1 - beta1^t) if `use_bias_correction`.
    """

    learning_rate: LearningRate = 1e-4
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    adamw_weight_decay: float = 0.0
    l2_weight_decay: float = 0.0
    use_nesterov: bool = True
    use_bias_correction: bool = True

    def __post_init__(self) -> None:
        check_learning_rate(self)
        check_decay(self, "beta1", "beta2")
        check_not_negative(self, "epsilon", "adamw_weight_decay", "l2_weight_decay")

    def transformation(self) -> optax.GradientTransformation:
        return optax.GradientTransformation(_init, self._step)

    def _step(
        self, updates: PyTree, state: PyTree, params: Params | None = None
    ) -> tuple[PyTree, NAdamWState]:
        grad = jax.tree.map(lambda g, p: g + self.l2_weight_decay * p, updates, params)
        mu = optax.tree.update_moment(grad, state.mu, self.beta1, 1)
        nu = optax.tree.update_moment(grad, state.nu, self.beta2, 2)
        direction = optax.tree.update_moment(grad, mu, self.beta1, 1) if self.use_nesterov else mu
        learning_rate = self._learning_rate(state.iteration)

        def leaf_update(direction: jax.Array, nu: jax.Array, param: jax.Array) -> jax.Array:
            step = direction / (jnp.sqrt(nu) + self.epsilon)
            return -learning_rate * (step + self.adamw_weight_decay * param)

        return jax.tree.map(leaf_update, direction, nu, params), NAdamWState(state.iteration + 1, mu, nu)

    def _learning_rate(self, iteration: Int[Array, ""]) -> Scalar:
        rate = self.learning_rate(iteration) if callable(self.learning_rate) else self.learning_rate
        if not self.use_bias_correction:
            return jnp.asarray(rate)
        step = iteration + 1
        return rate * jnp.sqrt(1 - self.beta2**step) / (1 - self.beta1**step)


def _init(params: Params) -> NAdamWState:
    zeros = jax.tree.map(jnp.zeros_like, params)
    return NAdamWState(iteration=jnp.zeros((), jnp.int32), mu=zeros, nu=zeros)
