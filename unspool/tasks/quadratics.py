"""Quadratic tasks: small inner problems for manual checks and fast meta-training."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from unspool.config.arguments import check_not_negative, check_whole_number
from unspool.tasks.base import Task, TaskFamily
from unspool.tasks.datasets.base import Datasets, datasets_from
from unspool.types import Aux, Batch, Params, PRNGKey, Scalar, TaskParams

_HESSIAN_SEED = 7


@dataclasses.dataclass(frozen=True)
class QuadraticTask(Task):
    """Minimise the squared norm of `dim` parameters."""

    dim: int = 10

    def __post_init__(self) -> None:
        check_whole_number(self, "dim")

    def init(self, key: PRNGKey) -> Params:
        return jax.random.normal(key, (self.dim,))

    def loss(self, params: Params, key: PRNGKey, data: Batch) -> Scalar:
        return jnp.sum(jnp.square(params))


@dataclasses.dataclass(frozen=True)
class NoisyMeanQuadraticTask(Task):
    """Minimise an ill-conditioned quadratic form around a mean that is redrawn for every loss.

    The loss is (params - n)ᵀ H (params - n) with n ~ N(0, noise_stdev²) and H = A Aᵀ for one fixed Gaussian
    A.
    """

    dim: int = 2
    noise_stdev: float = 1.0

    def __post_init__(self) -> None:
        check_whole_number(self, "dim")
        check_not_negative(self, "noise_stdev")

    def init(self, key: PRNGKey) -> Params:
        return 10.0 * jax.random.normal(key, (self.dim, 1))

    def loss(self, params: Params, key: PRNGKey, data: Batch) -> Scalar:
        root = jax.random.normal(jax.random.key(_HESSIAN_SEED), (self.dim, self.dim))
        mean = self.noise_stdev * jax.random.normal(key, params.shape)
        # xᵀ A Aᵀ x is the squared norm of Aᵀ x.
        return jnp.sum(jnp.square(root.T @ (params - mean)))


@dataclasses.dataclass(frozen=True)
class BatchQuadraticTask(Task):
    """`QuadraticTask(10)` with a data set that its loss does not read, for the code paths that carry data."""

    @property
    def datasets(self) -> Datasets:
        return _normal_datasets(batch_size=4, example_shape=(2,))

    def init(self, key: PRNGKey) -> Params:
        return jax.random.normal(key, (10,))

    def loss(self, params: Params, key: PRNGKey, data: Batch) -> Scalar:
        return jnp.sum(jnp.square(params))


@dataclasses.dataclass(frozen=True)
class LogQuadraticTask(Task):
    """Minimise the logarithm of the squared norm of ten parameters, which has no lower bound."""

    def init(self, key: PRNGKey) -> Params:
        return jax.random.normal(key, (10,))

    def loss(self, params: Params, key: PRNGKey, data: Batch) -> Scalar:
        return jnp.log(jnp.sum(jnp.square(params)))


@dataclasses.dataclass(frozen=True)
class SumQuadraticTask(Task):
    """Minimise the squared norm of the sum of two vectors: parameters in a dict, and a flat direction."""

    def init(self, key: PRNGKey) -> Params:
        a_key, b_key = jax.random.split(key)
        return {"a": jax.random.normal(a_key, (10,)), "b": jax.random.normal(b_key, (10,))}

    def loss(self, params: Params, key: PRNGKey, data: Batch) -> Scalar:
        return jnp.sum(jnp.square(params["a"] + params["b"]))


@dataclasses.dataclass(frozen=True, eq=False)
class TargetQuadraticTask(Task):
    """Minimise the squared distance to `target` `[dim]`: one sample of `FixedDimQuadraticFamily`."""

    target: Float[Array, " dim"]

    def init(self, key: PRNGKey) -> Params:
        return jax.random.normal(key, self.target.shape)

    def loss(self, params: Params, key: PRNGKey, data: Batch) -> Scalar:
        return jnp.sum(jnp.square(self.target - params))


@dataclasses.dataclass(frozen=True)
class FixedDimQuadraticFamily(TaskFamily):
    """Quadratics of `dim` parameters around a standard normal target."""

    dim: int = 10

    def __post_init__(self) -> None:
        check_whole_number(self, "dim")

    def sample(self, key: PRNGKey) -> TaskParams:
        return jax.random.normal(key, (self.dim,))

    def task_fn(self, task_params: TaskParams) -> Task:
        return TargetQuadraticTask(task_params)


@dataclasses.dataclass(frozen=True, eq=False)
class NoisyTargetQuadraticTask(Task):
    """The squared distance to `target` `[dim]` plus the mean of the batch."""

    target: Float[Array, " dim"]

    @property
    def datasets(self) -> Datasets:
        return _normal_datasets(batch_size=1, example_shape=())

    def init(self, key: PRNGKey) -> Params:
        return jax.random.normal(key, self.target.shape)

    def loss_and_aux(self, params: Params, key: PRNGKey, data: Batch) -> tuple[Scalar, Aux]:
        aux = {"l1": jnp.mean(jnp.abs(params)), "l2": jnp.mean(jnp.square(params))}
        return jnp.sum(jnp.square(self.target - params)) + jnp.mean(data), aux

    def normalizer(self, loss: Scalar) -> Scalar:
        return jnp.nan_to_num(jnp.clip(loss, 0.0, 1000.0), nan=1000.0)


@dataclasses.dataclass(frozen=True)
class FixedDimQuadraticFamilyData(TaskFamily):
    """`FixedDimQuadraticFamily` whose losses carry noise from a data set, with the aux values `l1` and `l2`.

    These are the means of |params| and of params^2. The normalizer clips to [0, 1000] and maps NaN to 1000.
    """

    dim: int = 10

    def __post_init__(self) -> None:
        check_whole_number(self, "dim")

    @property
    def datasets(self) -> Datasets:
        return _normal_datasets(batch_size=1, example_shape=())

    def sample(self, key: PRNGKey) -> TaskParams:
        return jax.random.normal(key, (self.dim,))

    def task_fn(self, task_params: TaskParams) -> Task:
        return NoisyTargetQuadraticTask(task_params)


@dataclasses.dataclass(frozen=True, eq=False)
class NoisyQuadraticTask(Task):
    """The sum of (`scale` (`center` - params))^2, both `[dim]`, with noise in the gradient only."""

    center: Float[Array, " dim"]
    scale: Float[Array, " dim"]
    cov: float

    def init(self, key: PRNGKey) -> Params:
        return jax.random.normal(key, self.center.shape)

    def loss(self, params: Params, key: PRNGKey, data: Batch) -> Scalar:
        noise = self.cov * jax.random.normal(key, params.shape)
        # The value is zero and the gradient is `noise`.
        measurement = jnp.sum(noise * (params - jax.lax.stop_gradient(params)))
        return jnp.sum(jnp.square(self.scale * (self.center - params))) + measurement


@dataclasses.dataclass(frozen=True)
class NoisyQuadraticFamily(TaskFamily):
    """Sums of (scale (center - params))^2 with center ~ N(0, 1), scale ~ U(0, 25) and noise in the gradient.

    The noise `cov` n, n ~ N(0, 1), is added to each component of the gradient; losses are exact.
    """

    dim: int = 10
    cov: float = 0.1

    def __post_init__(self) -> None:
        check_whole_number(self, "dim")
        check_not_negative(self, "cov")

    def sample(self, key: PRNGKey) -> TaskParams:
        center_key, scale_key = jax.random.split(key)
        center = jax.random.normal(center_key, (self.dim,))
        return center, 25.0 * jax.random.uniform(scale_key, (self.dim,))

    def task_fn(self, task_params: TaskParams) -> Task:
        center, scale = task_params
        return NoisyQuadraticTask(center, scale, self.cov)


@functools.cache
def _normal_datasets(batch_size: int, example_shape: tuple[int, ...], num_examples: int = 256) -> Datasets:
    def load_split(name: str) -> np.ndarray:
        generator = np.random.default_rng([len(name), *name.encode()])
        return generator.standard_normal((num_examples, *example_shape), np.float32)

    return datasets_from(load_split, batch_size)
