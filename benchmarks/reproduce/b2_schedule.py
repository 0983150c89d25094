"""B2, a learning-rate schedule of two numbers: smoothing avoids local minima in which exact gradients end.

The toy problem of Vicol, Metz and Sohl-Dickstein, ICML 2021.
"""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib.axes import Axes

from benchmarks.reproduce.outer_loop import Recipe, trained
from benchmarks.reproduce.report import Result, Row
from unspool.outer_trainers.dodge import DODGE
from unspool.outer_trainers.full_es import FullES
from unspool.outer_trainers.full_grad import FullGrad
from unspool.outer_trainers.gpes import GPES
from unspool.outer_trainers.gradient_estimator import GradientEstimator
from unspool.outer_trainers.truncated_es import TruncatedES
from unspool.outer_trainers.truncated_es_shared_noise import NRES
from unspool.outer_trainers.truncated_grad import TruncatedGrad
from unspool.outer_trainers.truncated_pes import TruncatedPES
from unspool.outer_trainers.truncated_step import VectorizedStep, VectorizedTruncatedStep
from unspool.outer_trainers.truncation_schedule import ConstantTruncationSchedule
from unspool.systems.learning_rate_ramp import LearningRateRamp
from unspool.types import Theta

NAME = "Learning-rate schedule"

_EPISODE, _TRUNCATION = 100, 10
_NUM_STEPS = 20_000
_NUM_PAIRS, _STD = 100, 0.3
_AVERAGED = 100  # thetas at the end of training, whose losses are averaged
_NOTES = """\
The system `LearningRateRamp` is gradient descent for 100 steps with a learning rate that changes from one
value to another. Theta is trained by Adam with learning rate 1e-2 and b1 0.99 for 20,000 outer steps of
10 inner steps each, or 2,000 outer steps of whole episodes, with 100 antithetic pairs and std 0.3 unless
stated otherwise. The table shows, for three seeds, the sum of the losses of an episode under theta,
averaged over the last 100 thetas. It is 2488 at the start, and 557 at the best point of a grid. Training
with exact gradients, of whole episodes or truncations, ends in the first local minimum."""


class _Case(NamedTuple):
    """One line of the table.

    Attributes:
        name: of the estimator.
        estimator: with its truncation and its number of tasks.
        low: lower bound on the result of every seed.
        high: upper bound on the result of every seed.
        num_steps: outer steps.
    """

    name: str
    estimator: GradientEstimator
    low: float = 0.0
    high: float = math.inf
    num_steps: int = _NUM_STEPS


def run(quick: bool) -> Result:
    """Trains with each estimator; `quick` with one seed."""
    num_seeds = 1 if quick else 3
    curves = {case.name: _losses(case, num_seeds) for case in _CASES}
    rows = [_row(case, curves[case.name]) for case in _CASES]
    columns = ("estimator", "sum of losses at the end")
    return Result("B2: a learning-rate schedule", columns, rows, functools.partial(_draw, curves), _NOTES)


def _losses(case: _Case, num_seeds: int) -> np.ndarray:
    """`[seeds, outer steps]`, sums over an episode."""
    recipe = Recipe(case.estimator, optax.adam(1e-2, b1=0.99), case.num_steps)
    thetas = trained(recipe, num_seeds)
    return np.asarray(jax.jit(jax.vmap(jax.vmap(_total_loss)))(thetas))


def _total_loss(theta: Theta) -> jax.Array:
    system, key = LearningRateRamp(), jax.random.PRNGKey(0)
    state = system.init_step_state(theta, None, key)
    _, out = jax.lax.scan(
        lambda state, _: system.unroll_step(theta, state, key, None, None), state, length=_EPISODE
    )
    return jnp.sum(out.loss)


def _row(case: _Case, losses: np.ndarray) -> Row:
    ends = np.mean(losses[:, -_AVERAGED:], axis=1)
    bounds = (f">= {case.low:g}" * (case.low > 0), f"<= {case.high:g}" * math.isfinite(case.high))
    cells = (case.name, " / ".join(f"{end:.0f}" for end in ends))
    is_within = bool(np.all((ends >= case.low) & (ends <= case.high)))
    return Row(cells, " and ".join(filter(None, bounds)), is_within)


def _system(num_tasks: int = _NUM_PAIRS, stagger: int = _TRUNCATION) -> VectorizedStep:
    return VectorizedTruncatedStep(LearningRateRamp(_EPISODE, stagger), num_tasks)


_WHOLE = ConstantTruncationSchedule(_EPISODE)
_CASES = (
    _Case("TruncatedPES", TruncatedPES(_system(), _TRUNCATION, std=_STD), high=600),
    _Case("GPES, noise for 50 steps", GPES(_system(), _TRUNCATION, noise_length=50, std=_STD), high=600),
    _Case("NRES", NRES(_system(), _TRUNCATION, std=_STD), high=600),
    _Case("NRES, all in step", NRES(_system(stagger=0), _TRUNCATION, std=_STD), high=600),
    _Case("FullES", FullES(_system(stagger=0), _WHOLE, std=_STD), high=600, num_steps=2000),
    _Case("TruncatedES", TruncatedES(_system(), _TRUNCATION, std=_STD), low=2300),
    _Case("TruncatedES, std 1", TruncatedES(_system(), _TRUNCATION, std=1.0), low=1000, high=1900),
    _Case("TruncatedGrad", TruncatedGrad(_system(10), _TRUNCATION), low=2300),
    _Case("FullGrad", FullGrad(_system(1, stagger=0), _WHOLE), low=2300, num_steps=2000),
    _Case("DODGE", DODGE(_system(), _TRUNCATION), low=2300),
)


def _draw(curves: dict[str, np.ndarray], axes: Axes) -> None:
    """The median over seeds, by inner steps."""
    for name, losses in curves.items():
        drawn = np.linspace(0, losses.shape[1] - 1, 400).astype(int)
        inner_steps = (drawn + 1) * (_NUM_STEPS * _TRUNCATION // losses.shape[1])
        axes.plot(inner_steps, np.median(losses[:, drawn], axis=0), label=name)
    axes.set(xlabel="inner steps of an unroll", ylabel="sum of losses", yscale="log")
    axes.legend(fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))
