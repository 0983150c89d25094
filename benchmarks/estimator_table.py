"""Measures every estimator on three systems, for the table of `docs/estimators.md`.

`python -m benchmarks.estimator_table` prints the table and writes it into the page.

Bias: the distance between the mean of many estimates and the gradient that they estimate, relative to the
length of the gradient. Variance at equal compute: total variance times inner steps, relative to `FullES`.
Memory: that of the compiled estimate and of the persistent state.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.estimator_table_cases import Case, cases
from benchmarks.reproduce.report import markdown_table, write_block
from benchmarks.reproduce.samples import Array, relative_bias, sample_estimates, total_variance, weights_of
from unspool.outer_trainers.dodge import DODGE
from unspool.outer_trainers.full_es import FullES
from unspool.outer_trainers.full_grad import FullGrad
from unspool.outer_trainers.gpes import GPES
from unspool.outer_trainers.gradient_estimator import GradientEstimator
from unspool.outer_trainers.truncated_es import TruncatedES
from unspool.outer_trainers.truncated_es_shared_noise import NRES
from unspool.outer_trainers.truncated_grad import TruncatedGrad
from unspool.outer_trainers.truncated_pes import TruncatedPES
from unspool.outer_trainers.truncated_step import VectorizedTruncatedStep
from unspool.outer_trainers.truncation_schedule import ConstantTruncationSchedule

_PAGE = Path(__file__).parents[1] / "docs/estimators.md"
_TRAJECTORIES = 4000
_TASKS_FOR_MEMORY = 100
_REFERENCE = "FullES"


class Estimator(NamedTuple):
    """A row of the table.

    Attributes:
        make: creates the estimator for a system.
        is_smoothed: whether it estimates the gradient of the smoothed loss.
        use: when to use it.
    """

    make: Callable[[Case, VectorizedTruncatedStep], GradientEstimator]
    is_smoothed: bool
    use: str


ESTIMATORS: Mapping[str, Estimator] = {
    "FullES": Estimator(
        lambda case, step: FullES(step, _episodes(case), std=case.std, steps_per_jit=case.truncation),
        is_smoothed=True,
        use="the objective needs whole episodes; workers must be stateless",
    ),
    "NRES": Estimator(
        lambda case, step: NRES(step, case.truncation, std=case.std),
        is_smoothed=True,
        use="**first choice** where theta changes little in an episode",
    ),
    "GPES": Estimator(
        lambda case, step: GPES(step, case.truncation, case.noise_length, std=case.std),
        is_smoothed=True,
        use="between the two, depending on `noise_length`",
    ),
    "TruncatedPES": Estimator(
        lambda case, step: TruncatedPES(step, case.truncation, std=case.std, steps_per_jit=1),
        is_smoothed=True,
        use="stale gradients, high latency; episodes of thousands of truncations",
    ),
    "TruncatedES": Estimator(
        lambda case, step: TruncatedES(step, case.truncation, std=case.std, steps_per_jit=1),
        is_smoothed=True,
        use="short-term effects are all that matters",
    ),
    "DODGE": Estimator(
        lambda case, step: DODGE(step, case.truncation, std=case.std),
        is_smoothed=False,
        use="smooth systems of few dimensions; a reference, exact with `pairs_per_task=d`",
    ),
    "TruncatedGrad": Estimator(
        lambda case, step: TruncatedGrad(step, case.truncation, steps_per_jit=1),
        is_smoothed=False,
        use="smooth, short-term; theta of many dimensions",
    ),
    "FullGrad": Estimator(
        lambda case, step: FullGrad(step, _episodes(case)),
        is_smoothed=False,
        use="smooth unrolls that fit into memory; theta of many dimensions",
    ),
}


class Measured(NamedTuple):
    """One estimator on one system.

    Attributes:
        bias: relative distance between the mean and the gradient.
        bias_by_chance: the expectation of `bias` for an unbiased estimator.
        cost: total variance of an estimate times its inner steps.
        memory_bytes: of the compiled estimate and its state, for 100 tasks.
        inner_steps: per task and estimate.
    """

    bias: float
    bias_by_chance: float
    cost: float
    memory_bytes: int
    inner_steps: int


def main() -> None:
    """Measures the estimators, prints the table and writes it into the page."""
    measured = {case.name: measure(case, _TRAJECTORIES) for case in cases()}
    table = markdown_table(table_of(measured))
    print(table)
    write_block(_PAGE, "table", table)


def measure(case: Case, num_trajectories: int) -> dict[str, Measured]:
    """Measures all estimators on one system."""
    smoothed, plain = case.smoothed_gradient(), case.gradient()
    return {
        name: _measured(estimator, case, smoothed if estimator.is_smoothed else plain, num_trajectories)
        for name, estimator in ESTIMATORS.items()
    }


def table_of(measured: Mapping[str, Mapping[str, Measured]]) -> list[list[str]]:
    """Returns the lines of the table, header first, from the measurements by system and estimator."""
    names = list(measured)
    first = measured[names[0]]
    head = ["estimator", *(f"bias, {name}" for name in names), *(f"variance, {name}" for name in names)]
    lines = [[*head, "memory, KiB", "inner steps", "when to use it"]]
    for name, estimator in ESTIMATORS.items():
        biases = [_bias_cell(measured[system][name]) for system in names]
        costs = [f"{of[name].cost / of[_REFERENCE].cost:.2g}" for of in measured.values()]
        memory, steps = f"{first[name].memory_bytes / 1024:,.0f}", f"{first[name].inner_steps:,}"
        lines.append([f"`{name}`", *biases, *costs, memory, steps, estimator.use])
    return lines


def _bias_cell(measured: Measured) -> str:
    return f"{measured.bias:.3f} ± {measured.bias_by_chance:.3f}"


def _measured(estimator: Estimator, case: Case, gradient: Array, num_trajectories: int) -> Measured:
    of_one = estimator.make(case, VectorizedTruncatedStep(case.system, 1))
    is_online = not isinstance(of_one, (FullES, FullGrad))
    num_truncations = case.num_steps // case.truncation if is_online else 1
    estimates = sample_estimates(of_one, case.theta, num_trajectories, num_truncations)
    bias, by_chance = relative_bias(np.mean(estimates, axis=1), gradient)
    memory_bytes, inner_steps = _memory_and_steps(estimator, case)
    cost = total_variance(estimates) * inner_steps
    return Measured(bias, by_chance, cost, memory_bytes, inner_steps)


def _memory_and_steps(estimator: Estimator, case: Case) -> tuple[int, int]:
    """Returns the bytes for 100 tasks, and the inner steps per task."""
    made = estimator.make(case, VectorizedTruncatedStep(case.system, _TASKS_FOR_MEMORY))
    weights, key = weights_of(case.theta), jax.random.key(0)
    state = made.init_worker_state(weights, key)
    compiled = (
        jax.jit(lambda weights, key, state: made.estimate(weights, key, state, made.get_data(), False)[0])
        .lower(weights, key, state)
        .compile()
    )
    temporary: int = cast(Any, compiled.memory_analysis()).temp_size_in_bytes
    persistent = sum(jnp.asarray(leaf).nbytes for leaf in jax.tree.leaves(state))
    inner_steps = int(compiled(weights, key, state).inner_steps) // _TASKS_FOR_MEMORY
    return temporary + persistent, inner_steps


def _episodes(case: Case) -> ConstantTruncationSchedule:
    return ConstantTruncationSchedule(case.num_steps)


if __name__ == "__main__":
    main()
