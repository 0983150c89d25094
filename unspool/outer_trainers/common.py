"""Functions that the tutorials import from here: perturbations of theta, and parts of estimators."""

import jax

from unspool.evolution.loss_difference import LossDifference, loss_difference
from unspool.evolution.perturbations import Perturbations
from unspool.steps.unroll import antithetic_thetas, antithetic_unroll, unroll
from unspool.types import PRNGKey, Theta

__all__ = [
    "LossDifference",
    "Perturbations",
    "antithetic_unroll",
    "loss_difference",
    "sample_perturbations",
    "unroll",
    "vector_sample_perturbations",
]


def sample_perturbations(theta: Theta, key: PRNGKey, std: float) -> Theta:
    """Return Gaussian noise like theta with standard deviation `std`. Consumes `key`."""
    noise = Perturbations(std).sample_for_task(theta, key)
    return jax.tree.map(lambda leaf: leaf[0], noise)


def vector_sample_perturbations(
    theta: Theta, key: PRNGKey, std: float, num_samples: int
) -> tuple[Theta, Theta, Theta]:
    """Return `(noise, theta + noise, theta - noise)`, leaves `[num_samples, ...]`. Consumes `key`."""
    noise = Perturbations(std).sample(theta, jax.random.split(key, num_samples))
    return noise, *antithetic_thetas(theta, noise)
