"""The architecture page names files and functions that exist, and its glossary is short."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/architecture.md").read_text()
STEP = re.compile(r"^\| [^|]+ \| `([\w.]+)` \| `([\w/.]+)` \|$", flags=re.MULTILINE)
FILES = sorted(set(re.findall(r"`((?:unspool|learner|workers|service|protos)/[\w/.]*)`", PAGE)))


def names_in(path: Path) -> set[str]:
    """Classes, functions and methods of a file: `Name`, `Name.method`."""
    tree = ast.parse(path.read_text())
    names = set()
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        if isinstance(node, ast.ClassDef):
            names |= {f"{node.name}.{one.name}" for one in node.body if isinstance(one, ast.FunctionDef)}
    return names


@pytest.mark.parametrize(("function", "file"), sorted(set(STEP.findall(PAGE))))
def test_every_step_of_a_path_is_in_the_named_file(function: str, file: str) -> None:
    assert function in names_in(ROOT / file)


@pytest.mark.parametrize("file", FILES)
def test_every_file_and_folder_exists(file: str) -> None:
    assert (ROOT / file).exists()


def test_the_path_of_a_gradient_is_short_enough_to_follow() -> None:
    start, end = PAGE.index("## The path of a gradient"), PAGE.index("## The path of a scale command")
    files = [file for _, file in STEP.findall(PAGE[start:end])]
    assert 15 <= len(files) <= 31  # it passed 31 files before the packages were cut
    assert len(files) == len(set(files))  # the page names one function of each


def test_the_glossary_has_at_most_twenty_words() -> None:
    rows = re.findall(r"^\| (?!word)([a-z ]+) \| ", PAGE[PAGE.index("## Glossary") :], flags=re.MULTILINE)
    assert 10 <= len(rows) <= 20
