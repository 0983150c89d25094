"""What `docs/systems.md` says is what the library does."""

import re
import sys
import tomllib
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.unspool.systems.examples import SYSTEMS
from unspool.experiment import Experiment

PAGE = (Path(__file__).parents[3] / "docs/systems.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def page_module() -> Iterator[types.ModuleType]:
    """The page's Python, run from top to bottom as the module that its configuration names."""
    package, module = types.ModuleType("your_package"), types.ModuleType("your_package.your_module")
    sys.modules |= {package.__name__: package, module.__name__: module}
    exec("\n".join(blocks("python")), module.__dict__)  # the page is ours
    yield module
    del sys.modules[package.__name__], sys.modules[module.__name__]


def test_the_pages_controller_learns_to_heat(page_module: Any) -> None:
    assert np.mean(page_module.mean_losses[-12:]) < 0.5 * np.mean(page_module.mean_losses[:12])


@pytest.mark.promoting
def test_the_pages_configuration_is_a_valid_one(page_module: Any) -> None:
    experiment = Experiment.from_toml(blocks("toml")[0])
    experiment.check()
    assert experiment.estimator(0) == page_module.estimator


def test_the_pages_table_of_a_system_names_a_system() -> None:
    table = tomllib.loads(blocks("toml")[1])
    estimator = {"type": "TruncatedPES", "trunc_length": 100, **table}
    tables = {**tomllib.loads(blocks("toml")[0]), "estimators": [estimator]}
    assert Experiment.from_tables(tables).estimator(0).truncated_step.num_tasks == 200


@pytest.mark.parametrize("name", SYSTEMS)
def test_every_system_is_on_the_page(name: str) -> None:
    assert f"| `{name}` |" in PAGE
