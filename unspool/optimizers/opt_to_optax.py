"""Any `Optimizer`, such as a trained learned optimizer, as an optax transformation."""

from collections.abc import Mapping
from typing import Any

import jax
import optax

from unspool.optimizers.optimizer import Optimizer, OptState
from unspool.params import as_params
from unspool.types import Params, PyTree


def opt_to_optax_opt(opt: Optimizer, num_steps: int | None = None) -> optax.GradientTransformationExtraArgs:
    """Return `opt` as an optax transformation, e.g. `opt_to_optax_opt(learned_opt.opt_fn(theta))`.

    Its `update` requires `params`, and passes extra arguments to `opt.update`, given as keywords or as one
    mapping `extra_args`: `loss` (or `value`, its name in optax), `key`, and so on. Its state is that of `opt`
    without the parameters, which optax's callers hold.

    Args:
        opt: The optimizer to wrap.
        num_steps: Number of updates planned, for optimizers that use it.
    """

    def init(params: Params) -> OptState:
        params = as_params(params)
        return opt.set_params(opt.init(params, num_steps=num_steps), None)

    def update(
        updates: PyTree,
        state: OptState,
        params: Params | None = None,
        *,
        extra_args: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> tuple[PyTree, OptState]:
        if params is None:
            raise ValueError(f"{opt.name} needs the current parameters: call update(grads, state, params)")
        params, updates = as_params(params), as_params(updates, "updates")
        known = {**(extra_args or {}), **kwargs}
        value = known.pop("value", None)
        known.setdefault("loss", value)
        state = opt.update(opt.set_params(state, params), updates, **known)
        steps = jax.tree.map(lambda new, old: new - old, opt.get_params(state), params)
        return steps, opt.set_params(state, None)

    return optax.GradientTransformationExtraArgs(init, update)
