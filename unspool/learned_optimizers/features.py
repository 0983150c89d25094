"""Input features of per-parameter learned optimizers: momenta, normalised tensors and time.

Axis 0 is the axis of features, followed by the axes of the tensor, so that the per-parameter network is a
matrix product over long contiguous rows. On a CPU core a step takes a quarter less time than with features
last.
"""

from typing import Final

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from unspool.types import ScalarLike

STEP_TIMESCALES: Final = (1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1e3, 3e3, 1e4, 3e4, 1e5)
_SECOND_MOMENT_FLOOR = 1e-5


def init_momenta(tensor: Float[Array, "*shape"], num_decays: int) -> Float[Array, " decays *shape"]:
    """Return zero momenta `[num_decays, *shape]`, in float32 whatever the tensor's dtype."""
    return jnp.zeros((num_decays, *tensor.shape), jnp.float32)


def update_momenta(
    momenta: Float[Array, " decays *shape"], gradient: Float[Array, "*shape"], decays: tuple[float, ...]
) -> Float[Array, " decays *shape"]:
    """Return m <- d m + (1 - d) g for every decay d, without bias correction.

    Args:
        momenta: `[num_decays, *shape]`.
        gradient: `[*shape]`.
        decays: One number in [0, 1] for each row of `momenta`.
    """
    decay = jnp.asarray(decays, jnp.float32).reshape((-1,) + (1,) * gradient.ndim)
    return decay * momenta + (1 - decay) * gradient[None]


def second_moment_normalized(rows: Float[Array, "features elements"]) -> Float[Array, "features elements"]:
    """Return `rows` `[features, elements]`, each divided by its root mean square over the elements."""
    mean_square = jnp.mean(jnp.square(rows), axis=1, keepdims=True)
    return rows * jax.lax.rsqrt(_SECOND_MOMENT_FLOOR + mean_square)


def tanh_step_embedding(iteration: ScalarLike) -> Float[Array, "11"]:
    """Return tanh(t / timescale - 1) for the 11 `STEP_TIMESCALES`, positive for timescales below t."""
    return jnp.tanh(jnp.asarray(iteration, jnp.float32) / jnp.asarray(STEP_TIMESCALES) - 1.0)
