"""The check of a whole configuration: tables, components, and their data."""

import contextlib
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from service.config.run_config import RunConfig
from service.config.toml_document import parse_tables, read_tables, with_overrides
from service.system_errors import naming
from unspool.config.config_error import ConfigError, Problem, ProblemList
from unspool.config.numerics import Numerics
from unspool.config.toml_values import as_toml
from workers.numeric_environment import Foreign, pin

if TYPE_CHECKING:
    from unspool.experiment import Experiment


def checked_config(
    path: Path,
    overrides: Sequence[str],
    report: Callable[[Sequence[Foreign]], object] | None = None,
) -> RunConfig:
    """Return the valid configuration at `path`, or from standard input if `path` is `-`.

    Args:
        path: of the file.
        overrides: `key=value` each.
        report: called with the variables of this process's environment that the configuration overrules.

    Raises:
        ConfigError: with every problem.
    """
    tables = parse_tables(_standard_input(), "standard input") if str(path) == "-" else read_tables(path)
    tables = with_overrides(tables, overrides)
    problems = ProblemList()
    with problems.gathered():
        config = RunConfig.from_tables(tables)
    numerics = Numerics()
    with contextlib.suppress(ConfigError):  # the problem has been collected already
        numerics = Numerics.from_tables(tables)
    foreign = pin(numerics)
    if report is not None:
        report(foreign)
    from unspool.experiment import Experiment  # imports JAX, which reads the environment

    with problems.gathered():
        experiment = Experiment.from_tables(tables)
        experiment.check()
    with problems.gathered():
        numerics.check_applied()
    problems.raise_if_any()
    _check_tasks(experiment, config.workers.device_count)
    return config


def _standard_input() -> bytes:
    with naming("standard input"):
        return sys.stdin.buffer.read()


def _check_tasks(experiment: "Experiment", devices: int) -> None:
    problems = ProblemList()
    for index, estimator in enumerate(experiment.estimators):
        if not estimator.is_compiled:
            if devices > 1:
                rule = "must be 1: an estimator that defines compute_gradient_estimate cannot be divided"
                problems.add(Problem("workers.devices", as_toml(devices), rule))
            continue
        num_tasks = estimator.truncated_step.num_tasks
        if num_tasks % devices:
            key, rule = f"estimators[{index}].num_tasks", f"must be a multiple of workers.devices ({devices})"
            problems.add(Problem(key, as_toml(num_tasks), rule))
    problems.raise_if_any()
