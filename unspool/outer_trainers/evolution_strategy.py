"""What all evolution strategies share: their options, their noise, and how differences become a gradient.

Each compares unrolls under `theta + noise` and `theta - noise`, an antithetic pair that shares its task, its
data and its keys. With `delta_t = loss_t(theta + noise) - loss_t(theta - noise)` and `xi_t` the noise that a
loss is credited to, the estimate is the mean over pairs of the sum over steps of `xi_t delta_t / (2 std^2)`,
divided by how many losses the steps have in expectation. It is not divided by how many they happen to have: a
ratio of two random numbers would estimate something else for every number of tasks. The finals of this class
differ in when noise is drawn, what an unroll starts from, and hence in `xi_t`.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import get_args

import jax
import jax.numpy as jnp

from unspool.config.arguments import check_choice, check_positive, check_whole_number, refusal
from unspool.outer_trainers.gradient_estimator import GradientEstimator, WorkerWeights, check_vectorized
from unspool.outer_trainers.loss_difference import (
    Divergence,
    LossDifference,
    Policy,
    Sides,
    loss_difference,
)
from unspool.outer_trainers.perturbations import LeafStds, NoiseKind, Perturbations
from unspool.outer_trainers.repeated_step import RepeatedStep
from unspool.outer_trainers.truncated_step import VectorizedStep
from unspool.types import PRNGKey, Theta

Std = float | Mapping[str, float]
"""Standard deviation of the noise; or a mapping from the paths of theta's leaves (`"layer/w"`, or what a path
begins with; `""` for all others) to theirs."""


class PerturbingEstimator(GradientEstimator):
    """Perturbs theta.

    Attributes:
        std: of the noise; a field of each final, at the place where callers give it.
    """

    std: Std


@dataclasses.dataclass(frozen=True)
class EvolutionStrategy(PerturbingEstimator):
    """The options of every evolution strategy.

    Attributes:
        truncated_step: the system.
        perturbation: the noise's distribution.
        pairs_per_task: antithetic pairs on each task, which share its data, its initial state and its keys.
        orthogonal: make the noise of a task's pairs orthogonal.
        stack_antithetic_samples: run both members of a pair as one unroll of twice the width, or one after
            the other in half the memory.
        sign_delta_loss_scalar: in place of each loss difference, use this times the sign of the differences'
            sum over the unroll's steps of the same episode.
        clip_loss_diff: bound on the size of each loss difference.
        divergence: what becomes of a task whose loss is not finite. Where theta stands near a cliff, "mask"
            leaves out just the pairs that see it: the gradient shrinks, and never points away from the cliff.
            "clip" makes a cliff repel.
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
        if isinstance(self.std, Mapping):
            object.__setattr__(self, "std", LeafStds(tuple(sorted(self.std.items()))))
        check_perturbations(self)
        check_choice(self, "divergence", get_args(Divergence))
        for bound in ("clip_loss_diff", "sign_delta_loss_scalar"):
            if getattr(self, bound) is not None:
                check_positive(self, bound, ", or None")
        if self.divergence == "clip" and self.clip_loss_diff is None:
            raise refusal(self, "divergence", "set clip_loss_diff, the bound to clip to")

    @property
    def perturbations(self) -> Perturbations:
        """How theta is perturbed."""
        std = self.std if isinstance(self.std, LeafStds) else float(self.std)  # type: ignore[arg-type]
        return Perturbations(std, self.perturbation, self.pairs_per_task, self.orthogonal)

    @property
    def reporting_step(self) -> VectorizedStep:
        """The step, whose losses the objective is made of."""
        return self.truncated_step

    @property
    def system(self) -> VectorizedStep:
        """What is unrolled: `reporting_step`, once for each pair of each task."""
        step = self.reporting_step
        return step if self.pairs_per_task == 1 else RepeatedStep(step, self.pairs_per_task)

    def no_noise(self, theta: Theta) -> Theta:
        """Like `sample_noise`, but zeros."""
        return jax.tree.map(lambda leaf: jnp.zeros((self.system.num_tasks, *leaf.shape), leaf.dtype), theta)

    def sample_noise(self, worker_weights: WorkerWeights, key: PRNGKey) -> Theta:
        """Noise for every pair, leaves `[num_tasks * pairs_per_task, ...]`. Consumes `key`."""
        keys = jax.random.split(key, self.truncated_step.num_tasks)
        return self.perturbations.sample(worker_weights.theta, keys)

    def difference(
        self, sides: Sides, mask: jax.Array, is_done: jax.Array, weights: jax.Array | None = None
    ) -> LossDifference:
        """What counts of the losses of all unrolls, leaves `[T, N]`, by this estimator's policy."""
        policy = Policy(self.divergence, self.clip_loss_diff, self.sign_delta_loss_scalar)
        return loss_difference(sides, mask, is_done, weights, policy)

    def gradient(
        self, credited: Theta, difference: LossDifference, losses_per_unroll: jax.Array | float = 1.0
    ) -> Theta:
        """The estimate, from the sum of all `xi_t delta_t` and an unroll's expected number of losses."""

        def mean(total: jax.Array, std: jax.Array | float) -> jax.Array:
            of_unrolls = difference.mean_over_unrolls(total / (2 * std**2))
            return of_unrolls / jnp.asarray(losses_per_unroll).astype(total.dtype)

        return jax.tree.map(mean, credited, self.perturbations.std_of_leaves(credited))


def check_perturbations(estimator: EvolutionStrategy) -> None:
    """Refuses impossible noise.

    Raises:
        ValueError: names the class, the argument, the value and the rule.
    """
    stds = dict(estimator.std) if isinstance(estimator.std, LeafStds) else None
    if stds is None:
        check_positive(estimator, "std")
    elif not stds or not all(0 < std < math.inf for std in stds.values()):
        raise ValueError(f"{type(estimator).__name__}(std={stds}): every std must be positive and finite")
    check_choice(estimator, "perturbation", get_args(NoiseKind))
    check_whole_number(estimator, "pairs_per_task")
    if estimator.orthogonal and (estimator.pairs_per_task == 1 or estimator.perturbation == "rademacher"):
        raise refusal(
            estimator,
            "orthogonal",
            f"not with pairs_per_task={estimator.pairs_per_task} and {estimator.perturbation} noise: "
            "orthogonal directions need several pairs per task, and gaussian or sphere noise",
        )
