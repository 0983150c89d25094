"""B4, variance: the closed form on linear systems, and the benefit of noise reuse on the Lorenz system.

Li, Harrison, Sohl-Dickstein, Smith and Metz, NeurIPS 2023, https://arxiv.org/abs/2304.12180.
"""

import jax
import numpy as np
from matplotlib.axes import Axes

from benchmarks.reproduce.b4_linear_system import DIM, NUM_STEPS, LinearLosses, LinearSystem
from benchmarks.reproduce.report import Result, Row
from benchmarks.reproduce.samples import sample_estimates, total_variance
from unspool.outer_trainers.full_es import FullES
from unspool.outer_trainers.gpes import GPES
from unspool.outer_trainers.gradient_estimator import GradientEstimator
from unspool.outer_trainers.truncated_es_shared_noise import NRES
from unspool.outer_trainers.truncated_step import VectorizedTruncatedStep
from unspool.outer_trainers.truncation_schedule import ConstantTruncationSchedule
from unspool.systems.lorenz import LorenzFit
from unspool.types import Theta

NAME = "Variance"

SYSTEMS = {
    "equal gradients": LinearLosses("equal"),
    "random gradients": LinearLosses("random"),
    "random gradients, decay 0.9": LinearLosses("random", decay=0.9),
    "sign flip half-way": LinearLosses("sign flip"),
}
WINDOW, NOISE_LENGTHS = 4, (4, 8, 16, 32, 64)
TOLERANCE = 0.05
_SAMPLES = 16_384

_LORENZ_STEPS, _LORENZ_WINDOW, _LORENZ_STD = 2000, 100, 0.04
_LORENZ_NOISE_LENGTHS = (100, 200, 500, 1000, 2000)
_LORENZ_SAMPLES, _LORENZ_SAMPLES_QUICK = 2000, 200
_LORENZ_POINTS = {"start": 0.0, "middle": 0.5, "near the optimum": 0.9}
_LEAST_RATIO = 6.0

_NOTES = f"""\
**Closed form.** The losses are linear in each step's copy of theta ({DIM} dimensions, episodes of
{NUM_STEPS} steps, truncations of {WINDOW}). The rows compare the measured variance of one antithetic
pair's estimate at a random truncation with the closed form, relative to the squared length of the
gradient. Noise is drawn every K steps: K = {WINDOW} is PES, K = {NUM_STEPS} is NRES. The closed form of
FullES is d + 1.

**Lorenz.** The rows show the total variance of one pair's estimate at a random truncation of
{_LORENZ_WINDOW} of {_LORENZ_STEPS} steps, with std {_LORENZ_STD}, at three thetas between the start and
the true theta. At equal compute, one estimate of FullES is compared with the mean of
{_LORENZ_STEPS // _LORENZ_WINDOW} independent truncations."""


def run(quick: bool) -> Result:
    """Runs both parts."""
    lorenz = lorenz_variances(_LORENZ_SAMPLES_QUICK if quick else _LORENZ_SAMPLES)
    rows = [row for name, losses in SYSTEMS.items() for row in closed_form_rows(name, losses)]
    rows += [row for name, of_point in lorenz.items() for row in _lorenz_rows(name, of_point)]
    return Result(
        title="B4: variance, in closed form and on the Lorenz system",
        columns=("system", "estimator", "expected", "measured"),
        rows=rows,
        figure=lambda axes: _draw(axes, lorenz),
        notes=_NOTES,
    )


def closed_form_rows(name: str, losses: LinearLosses) -> list[Row]:
    """Returns rows for all noise lengths and FullES on one linear system."""
    squared_length = float(np.sum(losses.gradient() ** 2))
    rows, measured = [], {}
    for length in NOISE_LENGTHS:
        measured[length] = linear_variance(length, losses) / squared_length
        expected = losses.variance(WINDOW, length) / squared_length
        label = _label(length, WINDOW, NUM_STEPS)
        rows.append(_closed_form_row(name, label, expected, measured[length]))
    full = linear_variance(None, losses) / squared_length
    least = min(variance for length, variance in measured.items() if length < NUM_STEPS)
    rows.append(_closed_form_row(name, "FullES", DIM + 1, full))
    rows.append(
        Row(
            (name, f"minimum over K < {NUM_STEPS}", "", f"{least:.2f}"),
            "not below NRES",
            measured[NUM_STEPS] <= least,
        )
    )
    return rows


def _closed_form_row(system: str, estimator: str, expected: float, measured: float) -> Row:
    cells = (system, estimator, f"{expected:.2f}", f"{measured:.2f}")
    return Row(cells, f"within {TOLERANCE:.0%}", abs(measured / expected - 1) <= TOLERANCE)


def linear_variance(noise_length: int | None, losses: LinearLosses) -> float:
    """Measured total variance of a pair's estimate; `noise_length` None is for FullES."""
    step = VectorizedTruncatedStep(LinearSystem(), 1)
    theta = LinearSystem().outer_init(jax.random.key(0))
    if noise_length is None:
        estimator, num_truncations = _full_es(step, NUM_STEPS, std=1.0), 1
    else:
        estimator, num_truncations = (
            _online(step, WINDOW, noise_length, NUM_STEPS, std=1.0),
            NUM_STEPS // WINDOW,
        )
    return total_variance(sample_estimates(estimator, theta, _SAMPLES, num_truncations, losses.data))


def _online(
    step: VectorizedTruncatedStep, truncation: int, noise_length: int, num_steps: int, std: float
) -> GradientEstimator:
    if noise_length == num_steps:
        return NRES(step, truncation, std=std)
    return GPES(step, truncation, noise_length, std=std)


def _full_es(step: VectorizedTruncatedStep, num_steps: int, std: float) -> GradientEstimator:
    return FullES(step, ConstantTruncationSchedule(num_steps), std=std, steps_per_jit=num_steps)


def _label(noise_length: int, truncation: int, num_steps: int) -> str:
    special = {truncation: "PES, ", num_steps: "NRES, "}
    return f"{special.get(noise_length, '')}K = {noise_length}"


def lorenz_variances(num_samples: int) -> dict[str, dict[str, float]]:
    """By theta and estimator: the total variance of one pair's estimate."""
    system = LorenzFit(_LORENZ_STEPS)
    step = VectorizedTruncatedStep(system, 1)
    online = {
        _label(length, _LORENZ_WINDOW, _LORENZ_STEPS): _online(
            step, _LORENZ_WINDOW, length, _LORENZ_STEPS, _LORENZ_STD
        )
        for length in _LORENZ_NOISE_LENGTHS
    }
    full = _full_es(step, _LORENZ_STEPS, _LORENZ_STD)
    num_truncations = _LORENZ_STEPS // _LORENZ_WINDOW
    variances = {}
    for name, share in _LORENZ_POINTS.items():
        theta = _theta_between(system, share)
        variances[name] = {
            label: total_variance(sample_estimates(estimator, theta, num_samples, num_truncations))
            for label, estimator in online.items()
        }
        variances[name]["FullES"] = total_variance(sample_estimates(full, theta, num_samples * 4))
    return variances


def _theta_between(system: LorenzFit, share: float) -> Theta:
    """Returns the theta at `share` of the line from the start (0) to the true theta (1)."""
    start, truth = system.outer_init(jax.random.key(0)), system.true_theta()
    return jax.tree.map(lambda a, b: (1 - share) * a + share * b, start, truth)


def _lorenz_rows(name: str, variances: dict[str, float]) -> list[Row]:
    labels = [label for label in variances if label != "FullES"]
    rows = []
    for previous, label in zip([None, *labels], labels, strict=False):
        passed = None if previous is None else variances[label] < variances[previous]
        bar = "" if previous is None else f"below {previous}"
        rows.append(Row((f"Lorenz, {name}", label, "", f"{variances[label]:.2e}"), bar, passed))
    pes, nres = variances[labels[0]], variances[labels[-1]]
    ratio = Row(
        (f"Lorenz, {name}", "PES / NRES", "", f"{pes / nres:.1f}"),
        f"at least {_LEAST_RATIO:.0f}",
        pes / nres >= _LEAST_RATIO,
    )
    per_window = variances["FullES"] * _LORENZ_STEPS / _LORENZ_WINDOW
    order = Row(
        (
            f"Lorenz, {name}",
            "FullES / NRES, FullES / PES at equal compute",
            "",
            f"{per_window / nres:.1f}, {per_window / pes:.2f}",
        ),
        "NRES < FullES < PES",
        nres < per_window < pes,
    )
    return [*rows, ratio, order]


def _draw(axes: Axes, variances: dict[str, dict[str, float]]) -> None:
    for name, of_point in variances.items():
        online = [value for label, value in of_point.items() if label != "FullES"]
        (line,) = axes.loglog(_LORENZ_NOISE_LENGTHS, online, marker="o", label=name)
        per_window = of_point["FullES"] * _LORENZ_STEPS / _LORENZ_WINDOW
        axes.axhline(per_window, color=line.get_color(), linestyle=":", linewidth=1)
    axes.set_xlabel("steps that a noise lasts (100: PES, 2000: NRES); dotted: FullES at equal compute")
    axes.set_ylabel("total variance of a pair's truncation")
    axes.legend(frameon=False)
