"""The problem of experiment B8: small classification tasks, a new one for each episode, and a learned
optimizer of 210 weights.
"""

import dataclasses
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from unspool.learned_optimizers.base import LearnedOptimizer
from unspool.learned_optimizers.features import init_momenta, update_momenta
from unspool.optimizers.optimizer import Optimizer, carried_model_state
from unspool.stable_types import strongly_typed
from unspool.tasks.base import Task, TaskFamily, softmax_cross_entropy
from unspool.types import Batch, ModelState, Params, PRNGKey, PyTree, Scalar, TaskParams, Theta

EPISODE_LENGTH = 100

_NUM_INPUTS, _NUM_HIDDEN, _NUM_CLASSES = 16, 32, 10
_NUM_CLUSTERS, _BATCH_SIZE = 20, 32
_CLUSTER_STD = 0.8

_DECAYS = (0.9, 0.99, 0.999)
_SECOND_MOMENT_DECAY = 0.95
_EPSILON = 1e-8
_NUM_FEATURES, _LOPT_HIDDEN = 10, 16
_STEP_MULT = 0.03


class Clusters(NamedTuple):
    """The parameters of a task: centres `[20, 16]` and the class `[20]` of each."""

    centres: jax.Array
    classes: jax.Array


@dataclasses.dataclass(frozen=True)
class ClusterClassification(TaskFamily):
    """Classification of a noisy point by the class of its cluster, with a 16-32-10 relu MLP.

    Every loss draws its own 32 points from its key.
    """

    def sample(self, key: PRNGKey) -> Clusters:
        centres_key, classes_key = jax.random.split(key)
        return Clusters(
            jax.random.normal(centres_key, (_NUM_CLUSTERS, _NUM_INPUTS)),
            jax.random.randint(classes_key, (_NUM_CLUSTERS,), 0, _NUM_CLASSES),
        )

    def task_fn(self, task_params: TaskParams) -> Task:
        return _ClusterTask(task_params)


@dataclasses.dataclass(frozen=True, eq=False)
class _ClusterTask(Task):
    """Returns the loss clipped at twice that of a uniform guess, the value of a diverged model."""

    clusters: Clusters

    def init(self, key: PRNGKey) -> Params:
        hidden_key, logits_key = jax.random.split(key)
        return {
            "hidden": _linear_layer(hidden_key, _NUM_INPUTS, _NUM_HIDDEN),
            "logits": _linear_layer(logits_key, _NUM_HIDDEN, _NUM_CLASSES),
        }

    def loss(self, params: Params, key: PRNGKey, data: Batch) -> Scalar:
        cluster_key, noise_key = jax.random.split(key)
        cluster = jax.random.randint(cluster_key, (_BATCH_SIZE,), 0, _NUM_CLUSTERS)
        noise = _CLUSTER_STD * jax.random.normal(noise_key, (_BATCH_SIZE, _NUM_INPUTS))
        hidden = jax.nn.relu(_apply(params["hidden"], self.clusters.centres[cluster] + noise))
        labels = jax.nn.one_hot(self.clusters.classes[cluster], _NUM_CLASSES)
        return jnp.mean(softmax_cross_entropy(logits=_apply(params["logits"], hidden), labels=labels))

    def normalizer(self, loss: Scalar) -> Scalar:
        worst = 2 * math.log(_NUM_CLASSES)
        return jnp.nan_to_num(jnp.clip(loss, 0.0, worst), nan=worst)


@dataclasses.dataclass(frozen=True)
class SmallLOpt(LearnedOptimizer):
    """A 10-16-2 MLP from features of a parameter to its step: 210 weights.

    After Celo2 (https://arxiv.org/abs/2602.19142), whose features are normalised too. A parameter's features
    are its gradient and three momenta, each divided by its root mean square over the tensor; the same four
    divided by the root of the parameter's own second moment; its value; and the time, from -4 at the start of
    an episode to 4 at its end. With outputs d and m, a step subtracts `0.03 d exp(m)`.
    """

    def init(self, key: PRNGKey) -> Theta:
        hidden_key, out_key = jax.random.split(key)
        return {
            "hidden": _linear_layer(hidden_key, _NUM_FEATURES, _LOPT_HIDDEN),
            "out": _linear_layer(out_key, _LOPT_HIDDEN, 2),
        }

    def opt_fn(self, theta: Theta, is_training: bool = False) -> Optimizer:
        return _SmallOptimizer(theta)


class SmallOptState(NamedTuple):
    """The state of an optimizer made by `SmallLOpt`; momenta `[3, *shape]`, second moments `[*shape]`."""

    params: Params
    momenta: PyTree
    second_moment: PyTree
    iteration: jax.Array
    num_steps: jax.Array
    state: ModelState


@dataclasses.dataclass(frozen=True, eq=False)
class _SmallOptimizer(Optimizer):
    theta: Theta

    def init(
        self,
        params: Params,
        model_state: ModelState = None,
        num_steps: int | Scalar | None = None,
        key: PRNGKey | None = None,
        **kwargs: Any,
    ) -> SmallOptState:
        params, model_state = strongly_typed((params, model_state))
        momenta = jax.tree.map(lambda param: init_momenta(param, len(_DECAYS)), params)
        length = jnp.asarray(EPISODE_LENGTH if num_steps is None else num_steps, jnp.int32)
        zeros = jax.tree.map(jnp.zeros_like, params)
        return SmallOptState(params, momenta, zeros, jnp.zeros((), jnp.int32), length, model_state)

    def update(
        self,
        opt_state: SmallOptState,
        grad: Params,
        loss: Scalar | None = None,
        model_state: ModelState = None,
        key: PRNGKey | None = None,
        **kwargs: Any,
    ) -> SmallOptState:
        iteration = opt_state.iteration + 1
        momenta = jax.tree.map(lambda m, g: update_momenta(m, g, _DECAYS), opt_state.momenta, grad)
        second_moment = jax.tree.map(
            lambda v, g: _SECOND_MOMENT_DECAY * v + (1 - _SECOND_MOMENT_DECAY) * jnp.square(g),
            opt_state.second_moment,
            grad,
        )
        time = 8 * opt_state.iteration / opt_state.num_steps - 4

        def stepped(param: jax.Array, g: jax.Array, m: jax.Array, v: jax.Array) -> jax.Array:
            features = _features(param, g, _debiased(m, iteration), v / (1 - _SECOND_MOMENT_DECAY**iteration))
            time_row = jnp.full((1, param.size), time)
            return param - self._step(jnp.concatenate([features, time_row])).reshape(param.shape)

        params = jax.tree.map(stepped, opt_state.params, grad, momenta, second_moment)
        state = carried_model_state(opt_state.state, model_state)
        return SmallOptState(params, momenta, second_moment, iteration, opt_state.num_steps, state)

    def _step(self, features: jax.Array) -> jax.Array:
        """`[elements]`, from features `[10, elements]` of one tensor."""
        hidden = jax.nn.relu(_apply_to_columns(self.theta["hidden"], features))
        direction, magnitude = _apply_to_columns(self.theta["out"], hidden)
        step: jax.Array = _STEP_MULT * direction * jnp.exp(magnitude)
        return step


def _debiased(momenta: jax.Array, iteration: jax.Array) -> jax.Array:
    decays = jnp.asarray(_DECAYS).reshape((-1,) + (1,) * (momenta.ndim - 1))
    return momenta / (1 - decays**iteration)


def _features(param: jax.Array, grad: jax.Array, momenta: jax.Array, second_moment: jax.Array) -> jax.Array:
    """`[9, elements]` of one tensor: the features of each parameter."""
    first = jnp.concatenate([grad.reshape(1, -1), momenta.reshape(len(_DECAYS), -1)])
    by_own_size = first * jax.lax.rsqrt(_EPSILON + second_moment.reshape(1, -1))
    return jnp.concatenate([_by_tensor_size(first), by_own_size, _by_tensor_size(param.reshape(1, -1))])


def _by_tensor_size(rows: jax.Array) -> jax.Array:
    """Rows `[features, elements]`, each divided by its root mean square over the tensor."""
    return rows * jax.lax.rsqrt(_EPSILON + jnp.mean(jnp.square(rows), axis=1, keepdims=True))


def _linear_layer(key: PRNGKey, num_in: int, num_out: int) -> Params:
    weight = jax.random.normal(key, (num_in, num_out)) / math.sqrt(num_in)
    return {"w": weight, "b": jnp.zeros(num_out)}


def _apply(layer: Params, rows: jax.Array) -> jax.Array:
    result: jax.Array = rows @ layer["w"] + layer["b"]
    return result


def _apply_to_columns(layer: Params, columns: jax.Array) -> jax.Array:
    result: jax.Array = layer["w"].T @ columns + layer["b"][:, None]
    return result
