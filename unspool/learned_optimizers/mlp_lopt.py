"""MLPLOpt: one small MLP of gradients, momenta and time, applied to each parameter separately.

Source: L. Metz et al., "Understanding and correcting pathologies in the training of learned optimizers", ICML
2019.
"""

import dataclasses
import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Self

import haiku as hk
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from unspool.config.arguments import check_finite, check_positive, check_whole_number
from unspool.learned_optimizers.base import LearnedOptimizer
from unspool.learned_optimizers.features import (
    STEP_TIMESCALES,
    init_momenta,
    second_moment_normalized,
    tanh_step_embedding,
    update_momenta,
)
from unspool.optimizers.optimizer import Optimizer, carried_model_state
from unspool.params import as_params
from unspool.stable_types import strongly_typed, typed_like
from unspool.types import Arrays, ModelState, Params, PRNGKey, PyTree, Scalar, ScalarLike, Theta

_DECAYS = (0.1, 0.5, 0.9, 0.99, 0.999, 0.9999)
_NUM_TENSOR_FEATURES = 2 + len(_DECAYS)  # the gradient, the parameter, its momenta
_NUM_INPUTS = _NUM_TENSOR_FEATURES + len(STEP_TIMESCALES)
_NUM_OUTPUTS = 2  # direction and log magnitude

# Tensors share one matrix product up to this total number of elements. Below it the overhead of a product
# dominates, above it the memory of the hidden layers (`hidden_size` floats per element).
_MAX_SHARED_ELEMENTS = 1 << 17
# Rows are padded to a multiple of SIMD vectors, which is 7 % faster on CPU.
_ROW_MULTIPLE = 16


class MLPLOptState(NamedTuple):
    """The state of an optimizer made by `MLPLOpt`."""

    params: Params
    rolling_features: PyTree  # like params, each leaf a float32 [6, *shape] of momenta
    iteration: Int[Array, ""]
    state: ModelState

    def replace(self, **changes: Any) -> Self:
        """Return a copy with some fields changed."""
        return self._replace(**changes)


@dataclasses.dataclass(frozen=True)
class MLPLOpt(LearnedOptimizer):
    """An MLP from 19 features of a parameter to its step; theta has 1762 weights at the default sizes.

    A parameter's features are its gradient, its value and six momenta, each divided by its root mean square
    over the tensor, and eleven tanh features of the iteration. With outputs d and m, a step subtracts d exp(m
    `exp_mult`) `step_mult`.

    Args:
        exp_mult: How strongly the second output scales the step.
        step_mult: Size of a step whose outputs are of order one.
        hidden_size: Width of the hidden layers.
        hidden_layers: Number of hidden layers.
        compute_summary: No effect; accepted for configurations written for the tutorials.
    """

    exp_mult: float = 0.001
    step_mult: float = 0.001
    hidden_size: int = 32
    hidden_layers: int = 2
    compute_summary: bool = dataclasses.field(default=True, compare=False)

    def __post_init__(self) -> None:
        check_finite(self, "exp_mult")
        check_positive(self, "step_mult")
        check_whole_number(self, "hidden_size")
        check_whole_number(self, "hidden_layers")

    def init(self, key: PRNGKey) -> Theta:
        def forward(features: jax.Array) -> jax.Array:
            outputs: jax.Array = hk.nets.MLP([self.hidden_size] * self.hidden_layers + [_NUM_OUTPUTS])(
                features
            )
            return outputs

        return hk.transform(forward).init(key, jnp.zeros((1, _NUM_INPUTS), jnp.float32))

    def opt_fn(self, theta: Theta, is_training: bool = False) -> Optimizer:
        return _MLPOptimizer(self, theta)


@dataclasses.dataclass(frozen=True, eq=False)
class _MLPOptimizer(Optimizer):
    config: MLPLOpt
    theta: Theta

    @property
    def name(self) -> str:
        return self.config.name

    def init(
        self, params: Params, model_state: ModelState = None, *_: object, **unused: object
    ) -> MLPLOptState:
        params, model_state = as_params(params), strongly_typed(model_state)
        momenta = jax.tree.map(lambda param: init_momenta(param, len(_DECAYS)), params)
        return MLPLOptState(params, momenta, jnp.zeros((), jnp.int32), model_state)

    def update(
        self,
        opt_state: MLPLOptState,
        grad: Params,
        loss: ScalarLike | None = None,
        model_state: ModelState = None,
        *_: object,
        **unused: object,
    ) -> MLPLOptState:
        grad = strongly_typed(grad)
        momenta = jax.tree.map(
            lambda old, leaf: update_momenta(old, leaf.astype(jnp.float32), _DECAYS),
            opt_state.rolling_features,
            grad,
        )
        params, structure = jax.tree.flatten(opt_state.params)
        rows = [
            _tensor_features(*tensors)
            for tensors in zip(jax.tree.leaves(grad), params, jax.tree.leaves(momenta), strict=True)
        ]
        steps = self._steps(rows, opt_state.iteration)
        stepped = [_moved(param, step) for param, step in zip(params, steps, strict=True)]
        return MLPLOptState(
            params=typed_like(jax.tree.unflatten(structure, stepped), opt_state.params),
            rolling_features=momenta,
            iteration=opt_state.iteration + 1,
            state=carried_model_state(opt_state.state, model_state),
        )

    def _steps(self, rows: Sequence[jax.Array], iteration: Scalar) -> Iterator[jax.Array]:
        """Yield the step `[elements]` of each tensor from its features `[8, elements]`."""
        layers = self._layers(iteration)
        for group in _groups(rows):
            sizes = [tensor.shape[1] for tensor in group]
            padding = jnp.zeros((_NUM_TENSOR_FEATURES, -sum(sizes) % _ROW_MULTIPLE))
            direction, magnitude = _mlp(layers, jnp.concatenate([*group, padding], axis=1))
            step = direction * jnp.exp(magnitude * self.config.exp_mult) * self.config.step_mult
            start = 0
            for size in sizes:
                yield step[start : start + size]
                start += size

    def _layers(self, iteration: Scalar) -> list[tuple[Arrays, Arrays]]:
        """Return weights `[in, out]` and biases `[out]` of the network as a function of tensor features.

        All parameters share the step features, so their contribution to the first layer is one bias vector.
        """
        modules = [self.theta[f"mlp/~/linear_{index}"] for index in range(self.config.hidden_layers + 1)]
        layers = [(module["w"], module["b"]) for module in modules]
        weight, bias = layers[0]
        step_bias = tanh_step_embedding(iteration) @ weight[_NUM_TENSOR_FEATURES:]
        return [(weight[:_NUM_TENSOR_FEATURES], bias + step_bias), *layers[1:]]


def _moved(param: Float[Array, "*shape"], step: Float[Array, " elements"]) -> Float[Array, "*shape"]:
    """Return `param` minus `step` `[elements]`, in the wider of their two types."""
    wide = max(param.dtype, step.dtype, key=lambda dtype: dtype.itemsize)
    return param.astype(wide) - step.reshape(param.shape).astype(wide)


def _tensor_features(
    grad: Float[Array, "*shape"], param: Float[Array, "*shape"], momenta: Float[Array, " 6 *shape"]
) -> Float[Array, "8 elements"]:
    """Return the normalised features `[8, elements]` of one tensor; a scalar has one element."""
    size = math.prod(param.shape)
    grad, param = (tensor.astype(jnp.float32).reshape(1, size) for tensor in (grad, param))
    blocks = (grad, param, momenta.reshape(len(_DECAYS), size))
    # Blocks are normalised separately, so that XLA fuses the statistics of the momenta into their update.
    return jnp.concatenate([second_moment_normalized(block) for block in blocks])


def _groups(rows: Sequence[jax.Array]) -> Iterator[list[jax.Array]]:
    """Yield consecutive tensors in groups of at most `_MAX_SHARED_ELEMENTS`, larger tensors separately."""
    group: list[jax.Array] = []
    elements = 0
    for tensor in rows:
        if group and elements + tensor.shape[1] > _MAX_SHARED_ELEMENTS:
            yield group
            group, elements = [], 0
        group.append(tensor)
        elements += tensor.shape[1]
    if group:
        yield group


def _mlp(layers: Sequence[tuple[Arrays, Arrays]], rows: jax.Array) -> jax.Array:
    """Apply a relu MLP to each column of `rows` `[in, elements]`; return `[out, elements]`."""
    for index, (weight, bias) in enumerate(layers):
        if index > 0:
            rows = jax.nn.relu(rows)
        rows = weight.T @ rows + bias[:, None]
    return rows
