"""B1, influence balancing: truncated gradients have the wrong sign, unbiased estimates of one step do not.

The figure of Vicol, Metz and Sohl-Dickstein, ICML 2021, and noise reuse at small populations.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib.axes import Axes

from benchmarks.reproduce.outer_loop import Recipe, trained
from benchmarks.reproduce.report import Result, Row
from unspool.outer_trainers.dodge import DODGE
from unspool.outer_trainers.gradient_estimator import GradientEstimator
from unspool.outer_trainers.truncated_es import TruncatedES
from unspool.outer_trainers.truncated_es_shared_noise import NRES
from unspool.outer_trainers.truncated_grad import TruncatedGrad
from unspool.outer_trainers.truncated_pes import TruncatedPES
from unspool.outer_trainers.truncated_step import VectorizedStep, VectorizedTruncatedStep
from unspool.systems.influence_balancing import InfluenceBalancing

NAME = "Influence balancing"

_LEARNING_RATE, _NUM_STEPS, _STD = 1e-4, 3000, 0.1
_STEPS_FROM_SCRATCH = 500
_GOOD_LOSS = 1e-2
_NOTES = """\
The system is `InfluenceBalancing` with 23 units, which is never reset. Theta is trained by SGD with
learning rate 1e-4 for 3000 outer steps; the loss of an estimate is that of its last step. N is the number
of antithetic pairs, std is 0.1. The table shows, for five seeds, the loss after 500 steps from the
initial state under the trained theta; it is 8 under the initial theta. Real-time recurrent learning
(RTRL) is `DODGE` with as many directions as theta has dimensions, here one. UORO is omitted: because of
its variance it needs a tenth of the learning rate and several times the steps."""


class _Case(NamedTuple):
    """One line of the table.

    Attributes:
        name: of the estimator.
        estimator: with its truncation and its number of tasks.
        bar: the criterion in words.
        holds: whether the losses `[seeds, outer steps]` meet it.
    """

    name: str
    estimator: GradientEstimator
    bar: str
    holds: Callable[[np.ndarray], bool]


def run(quick: bool) -> Result:
    """Trains with each estimator; `quick` with one seed."""
    num_seeds = 1 if quick else 5
    losses = {case.name: _losses(case.estimator, num_seeds) for case in _CASES}
    rows = [_row(case, losses[case.name]) for case in _CASES]
    columns = ("estimator", "loss at the end", f"first step below {_GOOD_LOSS:g}")
    return Result("B1: influence balancing", columns, rows, functools.partial(_draw, losses), _NOTES)


def _losses(estimator: GradientEstimator, num_seeds: int) -> np.ndarray:
    """`[seeds, outer steps]`, losses from the initial state under each theta."""
    recipe = Recipe(estimator, optax.sgd(_LEARNING_RATE), _NUM_STEPS)
    drives = trained(recipe, num_seeds)["drive"]
    return np.asarray(jax.jit(jax.vmap(jax.vmap(_loss_from_scratch)))(drives))


def _loss_from_scratch(drive: jax.Array) -> jax.Array:
    system = InfluenceBalancing()
    units = jnp.full(system.num_units, system.initial_unit)
    moved = jax.lax.fori_loop(0, _STEPS_FROM_SCRATCH, lambda _, u: system.moved({"drive": drive}, u), units)
    return system.loss(moved)


def _row(case: _Case, losses: np.ndarray) -> Row:
    low, high = np.min(losses[:, -1]), np.max(losses[:, -1])
    first = _first_good(losses)
    reached = [int(step) for step in first if step <= _NUM_STEPS]
    when = f"{min(reached)} to {max(reached)} ({len(reached)}/{len(first)})" if reached else "never"
    return Row((case.name, f"{low:.2g} to {high:.2g}", when), case.bar, case.holds(losses))


def _first_good(losses: np.ndarray) -> np.ndarray:
    """`[seeds]`: the first outer step with a good loss, or the number of outer steps plus one."""
    is_good = losses < _GOOD_LOSS
    return np.where(is_good.any(axis=1), is_good.argmax(axis=1) + 1, losses.shape[1] + 1)


def _ends_below(bound: float) -> Callable[[np.ndarray], bool]:
    return lambda losses: bool(np.all(losses[:, -1] <= bound))


def _ends_above(bound: float, share: float = 1.0) -> Callable[[np.ndarray], bool]:
    # Written as `not <`, so that a loss that is not finite counts as diverged.
    return lambda losses: bool(np.mean(~(losses[:, -1] < bound)) >= share)


def _converges(losses: np.ndarray) -> bool:
    return _ends_below(1e-6)(losses) and bool(np.all(_first_good(losses) <= 1000))


def _system(truncation: int, num_tasks: int) -> VectorizedStep:
    return VectorizedTruncatedStep(InfluenceBalancing(loss_every=truncation), num_tasks)


def _backpropagation(truncation: int) -> GradientEstimator:
    return TruncatedGrad(_system(truncation, 1), truncation, steps_per_jit=1)


_CASES = (
    _Case("TruncatedGrad, truncation 1", _backpropagation(1), ">= 100", _ends_above(100)),
    _Case("TruncatedGrad, truncation 10", _backpropagation(10), ">= 1e6", _ends_above(1e6)),
    _Case("TruncatedGrad, truncation 100", _backpropagation(100), "<= 1e-6", _ends_below(1e-6)),
    _Case(
        "TruncatedES, N=1000",
        TruncatedES(_system(1, 1000), 1, steps_per_jit=1, std=_STD),
        ">= 100",
        _ends_above(100),
    ),
    _Case(
        "TruncatedPES, N=1000",
        TruncatedPES(_system(1, 1000), 1, steps_per_jit=1, std=_STD),
        "<= 1e-6, and < 1e-2 by step 1000",
        _converges,
    ),
    _Case(
        "TruncatedPES, N=100",
        TruncatedPES(_system(1, 100), 1, steps_per_jit=1, std=_STD),
        "<= 1e-3",
        _ends_below(1e-3),
    ),
    _Case(
        "TruncatedPES, N=10",
        TruncatedPES(_system(1, 10), 1, steps_per_jit=1, std=_STD),
        ">= 100 in 4 of 5",
        _ends_above(100, share=0.8),
    ),
    _Case("NRES, N=10", NRES(_system(1, 10), 1, std=_STD), "<= 1e-2", _ends_below(1e-2)),
    _Case(
        "NRES, N=1000",
        NRES(_system(1, 1000), 1, std=_STD),
        "<= 1e-6, and < 1e-2 by step 1000",
        _converges,
    ),
    _Case("RTRL (DODGE)", DODGE(_system(1, 1), 1, perturbation="sphere"), "<= 1e-8", _ends_below(1e-8)),
)


def _draw(losses: dict[str, np.ndarray], axes: Axes) -> None:
    """The median over seeds."""
    for name, of_seeds in losses.items():
        axes.plot(np.median(of_seeds, axis=0), label=name)
    axes.set(xlabel="outer step", ylabel="loss", yscale="log", ylim=(1e-9, 1e6))
    axes.legend(fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))
