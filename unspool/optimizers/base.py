"""The optimizers of the library, under the module path that user code imports."""

from unspool.optimizers.gradient_clip import GradientClipOptimizer
from unspool.optimizers.nadamw import NAdamW
from unspool.optimizers.opt_to_optax import opt_to_optax_opt
from unspool.optimizers.optax_opts import SGD, SGDM, Adam, AdamW, OptaxOptimizer, OptaxState, RMSProp
from unspool.optimizers.optimizer import Optimizer, OptState

__all__ = [
    "SGD",
    "SGDM",
    "Adam",
    "AdamW",
    "GradientClipOptimizer",
    "NAdamW",
    "OptState",
    "OptaxOptimizer",
    "OptaxState",
    "Optimizer",
    "RMSProp",
    "opt_to_optax_opt",
]
