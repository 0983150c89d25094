"""The documentation agrees with the program."""

import dataclasses
import re
import tomllib
from pathlib import Path

import pytest

from protos.exit_codes import ExitCode
from service.config import run_config
from unspool.config.component_names import NAMES
from unspool.experiment import Experiment

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
CONFIGURATION = (ROOT / "docs/configuration.md").read_text()
COMMAND_LINE = (ROOT / "docs/command_line.md").read_text()
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("deploy/*.md")])


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)


def test_the_python_code_of_the_readme_runs() -> None:
    scope: dict[str, object] = {}
    exec("\n".join(blocks(README, "python")), scope)  # the README is ours
    assert float(scope["params"]["w"][0]) < 1.0  # type: ignore[index]


def test_the_configuration_in_the_readme_is_valid() -> None:
    (text,) = blocks(README, "toml")
    run_config.RunConfig.from_tables(tomllib.loads(text))
    assert Experiment.from_toml(text).lanes == 4


def test_every_key_of_the_configuration_is_documented() -> None:
    for name, section in run_config._SECTIONS.items():
        for field in dataclasses.fields(section):
            assert f"`{name}.{field.name}`" in CONFIGURATION, f"{name}.{field.name}"


def test_every_component_is_documented() -> None:
    assert [name for name in NAMES if f"`{name}`" not in CONFIGURATION] == []


def test_every_exit_code_is_documented_with_its_meaning() -> None:
    documented = re.findall(r"^\| (\d+) \| (.*) \|$", COMMAND_LINE, flags=re.MULTILINE)
    assert [(int(code), meaning) for code, meaning in documented] == [(c.value, c.meaning) for c in ExitCode]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_between_pages_have_existing_targets(page: Path) -> None:
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text())
    assert [link for link in links if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_lines_of_prose_wrap_at_120_characters(page: Path) -> None:
    prose = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    assert [line for line in prose.splitlines() if len(line) > 120 and not line.startswith("|")] == []


def test_the_failure_matrix_names_tests_that_exist() -> None:
    named = re.findall(r"`([\w/]+/test_\w+\.py)`", (ROOT / "docs/failures.md").read_text())
    assert len(named) > 50
    assert [path for path in named if not (ROOT / "tests" / path).exists()] == []
