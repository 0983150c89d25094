"""B6, survival bias: workers that die move the optimum, unless lanes outlive them.

If each truncation of an unroll is the last with probability p, and unrolls then restart, truncation k is seen
`(1 - p)^k` times as often as the first: another objective, with another optimum. Here a worker process is
killed by SIGKILL in the middle of an estimate, and the service either restores its lane or cannot.
"""

import dataclasses
import math
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np

from benchmarks.reproduce.mortal_workers import MortalRun
from benchmarks.reproduce.report import Result, Row

NAME = "Survival bias"

DEATH_PROBABILITY: Final = 0.05
_WINDOW, _EPISODE = 5, 100
_WINDOWS = _EPISODE // _WINDOW
_BURN_IN = 1 / 3
TOLERANCE: Final = 0.002
_STRATUM = 50


class Training(NamedTuple):
    """How long, and in which portions.

    Attributes:
        steps: outer steps.
        truncations: of each, one after another from the one lane.
        learning_rate: of SGD.
    """

    steps: int
    truncations: int
    learning_rate: float


FULL: Final = Training(steps=40, truncations=5 * _WINDOWS, learning_rate=4e-3)
SHORT: Final = Training(steps=50, truncations=_WINDOWS, learning_rate=2e-3)

_NOTES = f"""Influence balancing, the mean loss of episodes of {_EPISODE} steps in truncations of {_WINDOW}.
`NRES` with 500 antithetic pairs, SGD, `async`, {FULL.steps} outer steps of {FULL.truncations} truncations.
A worker process kills itself by SIGKILL with probability {DEATH_PROBABILITY:g} after each truncation, and is
started again. Its lane is restored from its snapshot; or there are none and it starts from the beginning;
or it starts from the beginning and `death_probability` weighs truncations by their inverse survival, with a
learning rate divided by the factor that makes gradients larger. Shown is theta, averaged over the last two
thirds of the run, which begins half-way between the two optima."""

_CONFIG = """
seed = 0
outer_steps = {steps}
outer_optimizer = {{ type = "sgd", learning_rate = {learning_rate} }}

[aggregation]
mode = "async"
lanes = 1
batch = {truncations}
credits = {truncations}
max_staleness = 1000

[[estimators]]
type = "NRES"
unroll_length = {truncation}
std = 0.1
num_tasks = 500
death_probability = {death_probability}
truncated_step = {{ type = "InfluenceBalancing", episode_length = {episode}, initial_drive = {start} }}

[checkpoint]
every = {snapshot_every}
keep = 1

[workers]
count = 1
"""


@dataclasses.dataclass(frozen=True)
class Case:
    """One way of dealing with death.

    Attributes:
        name: of it.
        is_restored: whether lanes have snapshots to be restored from.
        is_weighted: whether truncations count by their inverse survival.
    """

    name: str
    is_restored: bool
    is_weighted: bool

    @property
    def gradient_scale(self) -> float:
        """How many times as large gradients are as without deaths."""
        survives_all = (1 - DEATH_PROBABILITY) ** _WINDOWS
        return _WINDOWS * DEATH_PROBABILITY / (1 - survives_all) if self.is_weighted else 1.0

    @property
    def optimum(self) -> float:
        """Where theta should go."""
        return optimum(0.0 if self.is_restored or self.is_weighted else DEATH_PROBABILITY)


def optimum(death_probability: float) -> float:
    """Where the mean loss of an episode is least, if truncation `k` counts `(1 - death_probability)^k`."""
    survival = (1 - death_probability) ** np.arange(_WINDOWS)
    at_zero, at_one = survival @ _window_gradients(0.0), survival @ _window_gradients(1.0)
    return float(at_zero / (at_zero - at_one))  # the gradient is linear in theta


RESTORED: Final = Case("lanes restored from snapshots", is_restored=True, is_weighted=False)
ANEW: Final = Case("lanes begin anew", is_restored=False, is_weighted=False)
WEIGHTED: Final = Case("lanes begin anew, inverse-survival weights", is_restored=False, is_weighted=True)


def run(quick: bool) -> Result:
    """The three ways."""
    rows = [_row(case, SHORT if quick else FULL) for case in (RESTORED, ANEW, WEIGHTED)]
    columns = ("after a death", "deaths", "optimum predicted", "theta")
    return Result("B6: survival bias", columns, rows, None, _NOTES)


def trained(case: Case, training: Training) -> tuple[float, int]:
    """Theta at the end of a run whose workers die, averaged, and how often they did."""
    training = training._replace(learning_rate=training.learning_rate / case.gradient_scale)
    config = _CONFIG.format(
        **training._asdict(),
        truncation=_WINDOW,
        episode=_EPISODE,
        start=(optimum(0.0) + optimum(DEATH_PROBABILITY)) / 2,
        death_probability=DEATH_PROBABILITY if case.is_weighted else 0.0,
        snapshot_every=1 if case.is_restored else 10**9,
    )
    with tempfile.TemporaryDirectory() as directory, MortalRun(Path(directory) / "run", config) as run:
        thetas = run.train(lifetimes(np.random.default_rng(0)))
    drives = [np.frombuffer(body, np.float32)[0] for body in thetas.values()]
    every_step = np.arange(int(_BURN_IN * training.steps), training.steps)
    return float(np.interp(every_step, list(thetas), drives).mean()), run.deaths


def lifetimes(draws: np.random.Generator) -> Iterator[int]:
    """Windows that the worker lives to finish, life after life: geometric, drawn stratum by stratum.

    Stratified draws have the distribution of independent ones, and come near to it with fewer deaths.
    """
    while True:
        uniform = (draws.permutation(_STRATUM) + draws.random(_STRATUM)) / _STRATUM
        yield from (1 + int(math.log1p(-u) / math.log1p(-DEATH_PROBABILITY)) for u in uniform)


def _window_gradients(drive: float) -> np.ndarray:
    """The exact gradient of each truncation's mean loss, `[truncations]`."""
    sign = np.where(np.arange(23) < 10, 1.0, -1.0)
    units, influence = np.ones(23), np.zeros(23)
    gradients = np.zeros(_WINDOWS)
    for step in range(_EPISODE):
        units = 0.5 * (units + np.append(units[1:], 0.0)) + drive * sign
        influence = 0.5 * (influence + np.append(influence[1:], 0.0)) + sign
        gradients[step // _WINDOW] += (units[0] - 1.0) * influence[0] / _WINDOW
    return gradients


def _row(case: Case, training: Training) -> Row:
    theta, deaths = trained(case, training)
    bar = f"within {TOLERANCE:g} of {case.optimum:.4f}"
    cells = (case.name, str(deaths), f"{case.optimum:.4f}", f"{theta:.4f}")
    return Row(cells, bar, abs(theta - case.optimum) <= TOLERANCE)
