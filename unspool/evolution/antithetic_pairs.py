"""Antithetic pairs of unrolls, and the gradient estimate from their loss differences.

A pair unrolls a task under `theta + noise` and under `theta - noise`; both members share the task, its data
and its keys. With `delta_t = loss_t(theta + noise) - loss_t(theta - noise)`, and with `xi_t` the noise that
multiplies the loss at step t, the estimate is the mean over pairs of `sum_t xi_t delta_t / (2 std^2)`,
divided by the expected number of losses in an unroll. The divisor is not the observed number: the expectation
of a ratio of two random variables depends on the number of tasks.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol, cast, get_args

import jax
import jax.numpy as jnp

from unspool.config.arguments import check_choice, check_positive, check_whole_number, refusal
from unspool.evolution.loss_difference import Divergence, LossDifference, Policy, Sides, loss_difference
from unspool.evolution.perturbations import LeafStds, NoiseKind, Perturbations
from unspool.evolution.repeated_step import RepeatedStep
from unspool.outer_trainers.gradient_estimator import check_vectorized
from unspool.outer_trainers.truncated_step import VectorizedStep
from unspool.types import PRNGKey, Theta

if TYPE_CHECKING:
    from unspool.evolution.evolution_strategy import EvolutionStrategy
    from unspool.outer_trainers.full_es import FullES

Std = float | Mapping[str, float]
"""Standard deviation of the noise: one number, or a mapping from paths of theta's leaves (`"layer/w"`) or
path prefixes to numbers; `""` is for all other leaves.
"""


@dataclasses.dataclass(frozen=True)
class AntitheticPairs:
    """The pairs that an evolution strategy unrolls.

    Attributes:
        step: the step that reports the losses.
        perturbations: the distribution of the noise.
        policy: the treatment of losses that are not finite or have large differences.
        stacked: whether both members of a pair run as one unroll of twice the width; else one after the
            other.
    """

    step: VectorizedStep
    perturbations: Perturbations
    policy: Policy
    stacked: bool

    @classmethod
    def of(cls, options: "EvolutionStrategy | FullES", step: VectorizedStep) -> "AntitheticPairs":
        """Return the pairs that an estimator's options describe, with `step` in place of the estimator's."""
        std = _std_of(options)
        std = std if isinstance(std, LeafStds) else float(std)  # type: ignore[arg-type]
        return cls(
            step,
            Perturbations(std, options.perturbation, options.pairs_per_task, options.orthogonal),
            Policy(options.divergence, options.clip_loss_diff, options.sign_delta_loss_scalar),
            options.stack_antithetic_samples,
        )

    @property
    def unrolled_step(self) -> VectorizedStep:
        """The step with one unroll for each pair of each task."""
        copies = self.perturbations.pairs_per_task
        return self.step if copies == 1 else RepeatedStep(self.step, copies)

    def no_noise(self, theta: Theta) -> Theta:
        """Return zeros in the shape of `sample_noise`."""
        width = self.unrolled_step.num_tasks
        return jax.tree.map(lambda leaf: jnp.zeros((width, *leaf.shape), leaf.dtype), theta)

    def sample_noise(self, theta: Theta, key: PRNGKey) -> Theta:
        """Return noise for every pair, leaves `[num_tasks * pairs_per_task, ...]`. Consumes `key`."""
        return self.perturbations.sample(theta, jax.random.split(key, self.step.num_tasks))

    def difference(
        self, sides: Sides, mask: jax.Array, is_done: jax.Array, weights: jax.Array | None = None
    ) -> LossDifference:
        """Return the loss differences of all pairs, leaves `[T, N]`, under the policy."""
        return loss_difference(sides, mask, is_done, weights, self.policy)

    def gradient(
        self, weighted_noise: Theta, difference: LossDifference, losses_per_unroll: jax.Array | float = 1.0
    ) -> Theta:
        """Return the estimate, from `sum_t xi_t delta_t` and the expected number of losses per unroll."""

        def mean(total: jax.Array, std: jax.Array | float) -> jax.Array:
            over_pairs = difference.mean_over_unrolls(total / (2 * std**2))
            return over_pairs / jnp.asarray(losses_per_unroll).astype(total.dtype)

        return jax.tree.map(mean, weighted_noise, self.perturbations.std_of_leaves(weighted_noise))


def check_pairs(options: "EvolutionStrategy | FullES") -> None:
    """Check the options of an estimator's pairs, and replace a mapping of stds by a hashable one.

    Raises:
        TypeError: `truncated_step` is not vectorized.
        ValueError: names the class, the argument, the value and the rule.
    """
    check_vectorized(options)
    std = _std_of(options)
    if isinstance(std, Mapping):
        object.__setattr__(options, "std", LeafStds(tuple(sorted(std.items()))))
    _check_noise(options)
    check_choice(options, "divergence", get_args(Divergence))
    for bound in ("clip_loss_diff", "sign_delta_loss_scalar"):
        if getattr(options, bound) is not None:
            check_positive(options, bound, ", or None")
    if options.divergence == "clip" and options.clip_loss_diff is None:
        raise refusal(options, "divergence", "set clip_loss_diff, the bound to clip to")


def _check_noise(options: "EvolutionStrategy | FullES") -> None:
    std = _std_of(options)
    stds = dict(std) if isinstance(std, LeafStds) else None
    if stds is None:
        check_positive(options, "std")
    elif not stds or not all(0 < std < math.inf for std in stds.values()):
        raise ValueError(f"{type(options).__name__}(std={stds}): every std must be positive and finite")
    check_choice(options, "perturbation", get_args(NoiseKind))
    check_whole_number(options, "pairs_per_task")
    if options.orthogonal and (options.pairs_per_task == 1 or options.perturbation == "rademacher"):
        raise refusal(
            options,
            "orthogonal",
            f"not with pairs_per_task={options.pairs_per_task} and {options.perturbation} noise: "
            "orthogonal directions need several pairs per task, and gaussian or sphere noise",
        )


class _HasStd(Protocol):
    std: Std


def _std_of(options: "EvolutionStrategy | FullES") -> Std:
    # Only the final classes declare `std`, each at its own position in the constructor.
    return cast(_HasStd, options).std
