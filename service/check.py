"""The check of a whole configuration: tables, components, and the data that they need."""

import sys
from collections.abc import Sequence
from pathlib import Path

from service.config import RunConfig
from service.toml_document import parse_tables, read_tables, with_overrides
from unspool.config_error import ProblemList
from unspool.experiment import Experiment


def checked_config(path: Path, overrides: Sequence[str]) -> RunConfig:
    """Return the configuration at `path`, or from standard input if that is `-`, once all of it holds.

    Raises:
        ConfigError: with everything that is wrong.
    """
    tables = parse_tables(sys.stdin.read(), "standard input") if str(path) == "-" else read_tables(path)
    tables = with_overrides(tables, overrides)
    problems = ProblemList()
    with problems.gathered():
        config = RunConfig.from_tables(tables)
    with problems.gathered():
        Experiment.from_tables(tables).check()
    problems.raise_if_any()
    return config
