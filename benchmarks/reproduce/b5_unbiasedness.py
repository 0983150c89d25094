"""B5, unbiased estimators: the mean of many estimates minus the exact gradient, in standard errors.

Influence balancing with a drive per unit is quadratic in theta, so antithetic estimates have no smoothing
bias, and any remaining bias is caused by truncation.
"""

import functools
from typing import NamedTuple

import jax
import numpy as np
from matplotlib.axes import Axes

from benchmarks.reproduce.report import Result, Row
from benchmarks.reproduce.samples import Array, exact_gradient, relative_bias, sample_estimates, z_scores
from unspool.outer_trainers.dodge import DODGE
from unspool.outer_trainers.full_es import FullES
from unspool.outer_trainers.gpes import GPES
from unspool.outer_trainers.gradient_estimator import GradientEstimator
from unspool.outer_trainers.truncated_es import TruncatedES
from unspool.outer_trainers.truncated_es_shared_noise import NRES
from unspool.outer_trainers.truncated_grad import TruncatedGrad
from unspool.outer_trainers.truncated_pes import TruncatedPES
from unspool.outer_trainers.truncated_step import VectorizedTruncatedStep
from unspool.outer_trainers.truncation_schedule import ConstantTruncationSchedule
from unspool.systems.influence_balancing import InfluenceBalancing

NAME = "Unbiasedness"

_NUM_STEPS, _WINDOW, _STD = 100, 5, 0.1
_TRAJECTORIES = 6000
_MEAN_Z2, _MAX_Z = (0.4, 1.8), 4.5
_BIASED_Z2 = 100.0
_SAME_TO = 1e-3

_NOTES = f"""\
The system is influence balancing with a drive for each of the 23 units, episodes of {_NUM_STEPS} steps
and truncations of {_WINDOW}; std is {_STD}. An estimate is the mean over the truncations of one episode.
z is the difference between the mean of {_TRAJECTORIES} estimates and the exact gradient in standard
errors, for each of the 23 dimensions. Without bias the expectation of the mean of z² is 1; its standard
deviation is 0.3 or more, because the dimensions are correlated. TruncatedGrad has no noise, and therefore
no z."""


class Sampled(NamedTuple):
    """Estimates `[n, 23]` of whole episodes, and what they estimate."""

    estimates: Array
    exact: Array

    @property
    def z(self) -> Array:
        """`[23]`."""
        return z_scores(self.estimates, self.exact)

    @property
    def bias(self) -> float:
        """Relative to the length of the gradient."""
        return relative_bias(self.estimates, self.exact)[0]

    @property
    def cosine(self) -> float:
        """Of the mean estimate and the exact gradient."""
        mean = self.estimates.mean(axis=0)
        return float(mean @ self.exact / np.linalg.norm(mean) / np.linalg.norm(self.exact))


def run(quick: bool) -> Result:
    """Measures every estimator on truncations, and FullES."""
    del quick  # it takes seconds
    rows = [unbiased_row(name) for name in unbiased_estimators()]
    rows += [
        _dodge_row("GPES, K = 20", DODGE(_step(), _WINDOW, 20)),
        _dodge_row("NRES", DODGE(_step(), _WINDOW)),
    ]
    rows += [biased_row(), _truncated_grad_row()]
    return Result(
        title="B5: unbiased estimators",
        columns=("estimator", "mean z²", "max abs z", "relative bias", "cosine"),
        rows=rows,
        figure=_draw,
        notes=_NOTES,
    )


def unbiased_estimators() -> dict[str, GradientEstimator]:
    """Returns the estimators that must be unbiased, by name."""
    step = _step()
    full = FullES(step, ConstantTruncationSchedule(_NUM_STEPS), std=_STD, steps_per_jit=_NUM_STEPS)
    return {
        "TruncatedPES": TruncatedPES(step, _WINDOW, std=_STD, steps_per_jit=1),
        **{f"GPES, K = {length}": GPES(step, _WINDOW, length, std=_STD) for length in (10, 20, 50)},
        "NRES": NRES(step, _WINDOW, std=_STD),
        "FullES": full,
    }


def unbiased_row(name: str) -> Row:
    """Returns the row of one of the `unbiased_estimators`."""
    estimator = unbiased_estimators()[name]
    sampled = _sampled(
        estimator, num_truncations=1 if isinstance(estimator, FullES) else _NUM_STEPS // _WINDOW
    )
    mean_z2, max_z = float(np.mean(sampled.z**2)), float(np.max(np.abs(sampled.z)))
    passed = _MEAN_Z2[0] <= mean_z2 <= _MEAN_Z2[1] and max_z < _MAX_Z
    bar = f"mean z² in [{_MEAN_Z2[0]}, {_MEAN_Z2[1]}], max below {_MAX_Z}"
    return Row((name, f"{mean_z2:.2f}", f"{max_z:.2f}", *_bias_cells(sampled)), bar, passed)


def biased_row() -> Row:
    """Returns the row of TruncatedES, whose bias the test must detect."""
    sampled = _sampled(_truncated_es(), _NUM_STEPS // _WINDOW)
    mean_z2 = float(np.mean(sampled.z**2))
    cells = ("TruncatedES", f"{mean_z2:,.0f}", f"{np.max(np.abs(sampled.z)):.0f}", *_bias_cells(sampled))
    return Row(cells, f"mean z² above {_BIASED_Z2:.0f}", mean_z2 > _BIASED_Z2)


def _dodge_row(name: str, dodge: DODGE) -> Row:
    """Returns the row of DODGE with the noise of the estimator `name` as directions."""
    num_truncations = _NUM_STEPS // _WINDOW
    ours, theirs = _sampled(dodge, num_truncations), _sampled(unbiased_estimators()[name], num_truncations)
    difference = np.linalg.norm(ours.estimates - theirs.estimates) / np.linalg.norm(theirs.estimates)
    cells = (
        f"DODGE with the directions of {name}",
        f"{np.mean(ours.z**2):.2f}",
        f"{np.max(np.abs(ours.z)):.2f}",
    )
    bar = f"estimates equal to {_SAME_TO}"
    return Row((*cells, *_bias_cells(ours)), bar, bool(difference <= _SAME_TO))


def _truncated_grad_row() -> Row:
    sampled = _sampled(
        TruncatedGrad(_step(), _WINDOW, steps_per_jit=1), _NUM_STEPS // _WINDOW, num_trajectories=1
    )
    return Row(("TruncatedGrad", "", "", *_bias_cells(sampled)))


def _bias_cells(sampled: Sampled) -> tuple[str, str]:
    return f"{sampled.bias:.3f}", f"{sampled.cosine:.2f}"


def _draw(axes: Axes) -> None:
    """Draws the gradient by unit, and the means of three estimators."""
    num_truncations = _NUM_STEPS // _WINDOW
    unbiased = unbiased_estimators()
    drawn = {name: unbiased[name] for name in ("TruncatedPES", "NRES")} | {"TruncatedES": _truncated_es()}
    for (name, estimator), marker in zip(drawn.items(), "ox^", strict=True):
        sampled = _sampled(estimator, num_truncations)
        axes.plot(sampled.estimates.mean(axis=0), marker, markersize=4, label=f"mean of {name}")
    axes.plot(sampled.exact, color="black", linewidth=1, label="exact")
    axes.set_xlabel("unit")
    axes.set_ylabel("gradient with respect to its drive")
    axes.legend(frameon=False)


def _truncated_es() -> GradientEstimator:
    return TruncatedES(_step(), _WINDOW, std=_STD, steps_per_jit=1)


def _step() -> VectorizedTruncatedStep:
    return VectorizedTruncatedStep(_system(), 1)


def _system() -> InfluenceBalancing:
    return InfluenceBalancing(per_unit_theta=True, episode_length=_NUM_STEPS)


@functools.cache
def _sampled(
    estimator: GradientEstimator, num_truncations: int, num_trajectories: int = _TRAJECTORIES
) -> Sampled:
    theta = _system().outer_init(jax.random.key(0))
    estimates = sample_estimates(estimator, theta, num_trajectories, num_truncations).mean(axis=1)
    return Sampled(estimates, exact_gradient(_system(), theta, _NUM_STEPS))
