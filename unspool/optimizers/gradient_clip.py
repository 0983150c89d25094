"""Gradient clipping in front of another optimizer."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from unspool.config.arguments import check_instance, check_positive
from unspool.optimizers.optimizer import Optimizer, OptState
from unspool.types import ModelState, Params


@dataclasses.dataclass(frozen=True)
class GradientClipOptimizer(Optimizer):
    """`opt` with each element of the gradient clipped to [-grad_clip, grad_clip]; same state as `opt`."""

    opt: Optimizer
    grad_clip: float = 3.0

    def __post_init__(self) -> None:
        check_instance(self, "opt", Optimizer, "OptaxOptimizer makes one of an optax transformation")
        check_positive(self, "grad_clip")

    @property
    def name(self) -> str:
        return f"{type(self).__name__}({self.opt.name})"

    def init(self, params: Params, *args: Any, **kwargs: Any) -> OptState:
        return self.opt.init(params, *args, **kwargs)

    def update(self, opt_state: OptState, grad: Params, *args: Any, **kwargs: Any) -> OptState:
        grad = jax.tree.map(lambda leaf: jnp.clip(leaf, -self.grad_clip, self.grad_clip), grad)
        return self.opt.update(opt_state, grad, *args, **kwargs)

    def get_params(self, state: OptState) -> Params:
        return self.opt.get_params(state)

    def get_state(self, state: OptState) -> ModelState:
        return self.opt.get_state(state)

    def set_params(self, state: OptState, params: Params) -> OptState:
        return self.opt.set_params(state, params)
