"""B6, survival bias: killed workers move the optimum, unless their lanes are restored.

If each truncation of an unroll is the last with probability p, and unrolls then restart, truncation k is seen
`(1 - p)^k` times as often as the first, which is another objective with another optimum. Here a worker
process is killed by SIGKILL in the middle of an estimate, and the service restores its lane or restarts it.
"""

import dataclasses
import math
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np

from benchmarks.reproduce.killed_workers import KilledWorkerRun
from benchmarks.reproduce.report import Result, Row

NAME = "Survival bias"

DEATH_PROBABILITY: Final = 0.05
_WINDOW, _EPISODE = 5, 100
_WINDOWS = _EPISODE // _WINDOW
_BURN_IN = 1 / 3
TOLERANCE: Final = 0.002
_STRATUM = 50


class Training(NamedTuple):
    """The outer training of a case.

    Attributes:
        steps: outer steps.
        truncations: per outer step, all from the only lane.
        learning_rate: of SGD.
    """

    steps: int
    truncations: int
    learning_rate: float


FULL: Final = Training(steps=40, truncations=5 * _WINDOWS, learning_rate=4e-3)
SHORT: Final = Training(steps=50, truncations=_WINDOWS, learning_rate=2e-3)

_NOTES = f"""\
The objective is the mean loss of influence balancing over episodes of {_EPISODE} steps, in truncations of
{_WINDOW}. Theta is trained in `async` by `NRES` with 500 antithetic pairs and SGD for {FULL.steps} outer
steps of {FULL.truncations} truncations each. A worker process kills itself by SIGKILL with probability
{DEATH_PROBABILITY:g} after each truncation, and is restarted. In the first row its lane is restored from
its snapshot. In the second row there are no snapshots, and the lane restarts. In the third row the lane
restarts too, `death_probability` weights truncations by their inverse probability of survival, and the
learning rate is divided by the factor by which this scales gradients. The table shows theta, averaged
over the last two thirds of the run, which starts half-way between the two optima."""

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
    """One treatment of lanes whose worker was killed.

    Attributes:
        name: of the treatment.
        is_restored: whether lanes are restored from snapshots.
        is_weighted: whether truncations are weighted by their inverse probability of survival.
    """

    name: str
    is_restored: bool
    is_weighted: bool

    @property
    def gradient_scale(self) -> float:
        """The factor by which the weights scale gradients."""
        survives_all = (1 - DEATH_PROBABILITY) ** _WINDOWS
        return _WINDOWS * DEATH_PROBABILITY / (1 - survives_all) if self.is_weighted else 1.0

    @property
    def optimum(self) -> float:
        """The expected theta."""
        return optimum(0.0 if self.is_restored or self.is_weighted else DEATH_PROBABILITY)


def optimum(death_probability: float) -> float:
    """Returns the minimum of an episode's mean loss if truncation `k` counts `(1 - death_probability)^k`."""
    survival = (1 - death_probability) ** np.arange(_WINDOWS)
    at_zero, at_one = survival @ _window_gradients(0.0), survival @ _window_gradients(1.0)
    return float(at_zero / (at_zero - at_one))  # the gradient is linear in theta


RESTORED: Final = Case("lanes restored from snapshots", is_restored=True, is_weighted=False)
RESTARTED: Final = Case("lanes restart", is_restored=False, is_weighted=False)
WEIGHTED: Final = Case("lanes restart, inverse-survival weights", is_restored=False, is_weighted=True)


def run(quick: bool) -> Result:
    """Runs the three cases."""
    rows = [_row(case, SHORT if quick else FULL) for case in (RESTORED, RESTARTED, WEIGHTED)]
    columns = ("after a kill", "kills", "predicted optimum", "theta")
    return Result("B6: survival bias", columns, rows, None, _NOTES)


def trained(case: Case, training: Training) -> tuple[float, int]:
    """Returns the averaged theta of a run whose workers are killed, and the number of kills."""
    training = training._replace(learning_rate=training.learning_rate / case.gradient_scale)
    config = _CONFIG.format(
        **training._asdict(),
        truncation=_WINDOW,
        episode=_EPISODE,
        start=(optimum(0.0) + optimum(DEATH_PROBABILITY)) / 2,
        death_probability=DEATH_PROBABILITY if case.is_weighted else 0.0,
        snapshot_every=1 if case.is_restored else 10**9,
    )
    with tempfile.TemporaryDirectory() as directory, KilledWorkerRun(Path(directory) / "run", config) as run:
        thetas = run.train(estimates_until_kills(np.random.default_rng(0)))
    drives = [np.frombuffer(body, np.float32)[0] for body in thetas.values()]
    every_step = np.arange(int(_BURN_IN * training.steps), training.steps)
    return float(np.interp(every_step, list(thetas), drives).mean()), run.kills


def estimates_until_kills(draws: np.random.Generator) -> Iterator[int]:
    """Yields the number of estimates before each kill: geometric, from stratified draws.

    Stratified draws have the distribution of independent ones and approximate it with fewer kills.
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
    theta, kills = trained(case, training)
    bar = f"within {TOLERANCE:g} of {case.optimum:.4f}"
    cells = (case.name, str(kills), f"{case.optimum:.4f}", f"{theta:.4f}")
    return Row(cells, bar, abs(theta - case.optimum) <= TOLERANCE)
