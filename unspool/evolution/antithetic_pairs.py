"""Antithetic pairs of unrolls, and the gradient estimate from their loss differences.

A pair unrolls a task under `theta + noise` and under `theta - noise`; both members share the task, its data
and its keys. With `delta_t = loss_t(theta + noise) - loss_t(theta - noise)`, and with `xi_t` the noise that
multiplies the loss at step t, the estimate is the mean over pairs of `sum_t xi_t delta_t / (2 std^2)`,
divided by the expected number of losses in an unroll. The divisor is not the observed number: the expectation
of a ratio of two random variables depends on the number of tasks.
"""

import abc
import dataclasses
import math
from collections.abc import Mapping
from typing import Any, cast, get_args

import jax
import jax.numpy as jnp

from unspool.config.arguments import check_choice, check_positive, check_whole_number, refusal
from unspool.evolution.loss_difference import Divergence, LossDifference, Policy, Sides, loss_difference
from unspool.evolution.perturbations import LeafStds, NoiseKind, Perturbations
from unspool.evolution.repeated_step import RepeatedStep
from unspool.outer_trainers.gradient_estimator import check_vectorized
from unspool.outer_trainers.truncated_step import VectorizedStep
from unspool.types import PRNGKey, Theta

Std = float | Mapping[str, float]
"""Standard deviation of the noise: one number, or a mapping from paths of theta's leaves (`"layer/w"`) or
path prefixes to numbers; `""` is for all other leaves.
"""


@dataclasses.dataclass(frozen=True)
class AntitheticPairs:
    """The pairs that an estimator unrolls: a step that reports the losses, the distribution of the noise,
    the treatment of losses, and whether both members of a pair run as one unroll of twice the width.
    """

    step: VectorizedStep
    perturbations: Perturbations
    policy: Policy
    stacked: bool

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


@dataclasses.dataclass(frozen=True)
class PairOptions(abc.ABC):
    """The options of an estimator that unrolls antithetic pairs. Final classes add `std`.

    Attributes:
        truncated_step: the step to unroll.
        perturbation: the distribution of the noise.
        pairs_per_task: antithetic pairs on each task, which share its data, its initial state and its keys.
        orthogonal: whether the noise vectors of a task's pairs are orthogonal.
        stack_antithetic_samples: whether both members of a pair run as one unroll of twice the width; else
            one after the other in half the memory.
        sign_delta_loss_scalar: if set, each loss difference is replaced by this times the sign of the sum of
            differences over the unroll's steps of the same episode.
        clip_loss_diff: bound on the size of each loss difference.
        divergence: the treatment of a task whose loss is not finite. Near a cliff of the loss, "mask" drops
            exactly the pairs that cross it: the gradient shrinks and never points away from the cliff. With
            "clip" the gradient points away from the cliff.
    """

    truncated_step: VectorizedStep
    _: dataclasses.KW_ONLY
    perturbation: NoiseKind = "gaussian"
    pairs_per_task: int = 1
    orthogonal: bool = False
    stack_antithetic_samples: bool = True
    sign_delta_loss_scalar: float | None = None
    clip_loss_diff: float | None = None
    divergence: Divergence = "mask"

    def __post_init__(self) -> None:
        check_vectorized(self)
        self._check_std()
        check_choice(self, "perturbation", get_args(NoiseKind))
        check_whole_number(self, "pairs_per_task")
        if self.orthogonal and (self.pairs_per_task == 1 or self.perturbation == "rademacher"):
            raise refusal(
                self,
                "orthogonal",
                f"not with pairs_per_task={self.pairs_per_task} and {self.perturbation} noise: "
                "orthogonal directions need several pairs per task, and gaussian or sphere noise",
            )
        check_choice(self, "divergence", get_args(Divergence))
        for bound in ("clip_loss_diff", "sign_delta_loss_scalar"):
            if getattr(self, bound) is not None:
                check_positive(self, bound, ", or None")
        if self.divergence == "clip" and self.clip_loss_diff is None:
            raise refusal(self, "divergence", "set clip_loss_diff, the bound to clip to")

    @property
    @abc.abstractmethod
    def pairs(self) -> AntitheticPairs:
        """The pairs to unroll."""

    def pairs_of(self, step: VectorizedStep) -> AntitheticPairs:
        """Return the pairs that these options describe, with `step` in place of `truncated_step`."""
        std = self._std if isinstance(self._std, LeafStds) else float(self._std)  # type: ignore[arg-type]
        return AntitheticPairs(
            step,
            Perturbations(std, self.perturbation, self.pairs_per_task, self.orthogonal),
            Policy(self.divergence, self.clip_loss_diff, self.sign_delta_loss_scalar),
            self.stack_antithetic_samples,
        )

    @property
    def _std(self) -> Std:
        std: Std = cast(Any, self).std  # only final classes declare it, each at its own position
        return std

    def _check_std(self) -> None:
        """Check the standard deviations, and replace a mapping by a hashable one."""
        if not isinstance(self._std, Mapping):
            check_positive(self, "std")
            return
        stds = dict(self._std)
        if not stds or not all(0 < std < math.inf for std in stds.values()):
            raise refusal(self, "std", "every std must be positive and finite")
        object.__setattr__(self, "std", LeafStds(tuple(sorted(stds.items()))))
