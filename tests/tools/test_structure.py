"""`tools/structure.py` detects violations of the rules on structure."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("unspool", "learner", "workers", "service", "protos")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project that obeys the rules, for tests to modify."""
    for package in PACKAGES:
        write(tmp_path / package / "__init__.py", '"""A package."""\n')
        write(
            tmp_path / package / "module.py",
            f"class {package.title()}:\n    field: int\n    def f(self): ...\n",
        )
    write(tmp_path / "tests" / "test_module.py", "def test_it(): ...\n")
    return tmp_path


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def structure(project: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, ROOT / "tools" / "structure.py", project]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def broken(project: Path) -> list[str]:
    """Return the printed violations of a project."""
    done = structure(project)
    lines = [line for line in done.stdout.splitlines() if line.startswith("structure: ")]
    assert done.returncode == (1 if lines else 0), done.stderr
    return [line.removeprefix("structure: ") for line in lines]


def test_a_project_that_obeys_the_rules_passes(project: Path) -> None:
    assert broken(project) == []


def test_a_long_file_is_named_with_its_length(project: Path) -> None:
    write(project / "learner" / "long.py", "x = 1\n" * 401)
    assert broken(project) == ["learner/long.py has 401 lines, at most 400: divide it by idea"]


def test_a_crowded_folder_is_named(project: Path) -> None:
    for number in range(15):
        write(project / "service" / "sub" / f"m{number}.py", "")
    assert broken(project) == []
    write(project / "service" / "sub" / "one_more.py", "")
    assert broken(project) == ["folder service/sub (16 files): at most 15; divide it"]


def test_deep_inheritance_is_named_by_its_last_class(project: Path) -> None:
    write(project / "unspool" / "deep.py", "class A: ...\nclass B(A): ...\nclass C(B): ...\n")
    assert broken(project) == []
    write(project / "unspool" / "deeper.py", "from unspool import deep\nclass D(deep.C[int]): ...\n")
    assert broken(project) == ["class D is at depth 4 of inheritance, at most 3: compose instead"]


def test_a_class_name_may_be_used_once(project: Path) -> None:
    write(project / "workers" / "again.py", "class Learner: ...\n")
    assert broken(project) == [
        "class Learner (learner/module.py, workers/again.py) is defined twice: rename one"
    ]


def test_a_recipe_that_needs_many_files_is_named_with_them(project: Path) -> None:
    for number in range(6):
        write(project / "service" / f"f{number}.py", "updates_per_s = 1\n")
    assert broken(project) == []
    write(project / "learner" / "servers" / "page.html", "updates_per_s")
    (rule,) = broken(project)
    assert rule.startswith(
        "a status figure (updates_per_s) is named in 7 files, at most 6: learner/servers/page"
    )


@pytest.mark.parametrize("alias", ["Any", "Tree", "Params"])
def test_aliases_of_any_count_as_any(project: Path, alias: str) -> None:
    text = "from typing import Any, TypeAlias\nTree: TypeAlias = Any\nParams = Tree\n"
    write(project / "unspool" / "vague.py", f"{text}def f(a: {alias}) -> int: ...\n")
    (rule,) = broken(project)
    assert rule.endswith("of the library's annotations are Any, at most 5%")


def test_the_table_contains_the_figures(project: Path) -> None:
    table = dict(line.rsplit(None, 1) for line in structure(project).stdout.splitlines())
    assert table["files"] == "10"
    assert table["lines"] == "20"
    assert table["depth of inheritance"] == "1"
    assert table["lines of tests for each line (target 1.00)"] == "0.05"
