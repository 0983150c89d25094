"""Modules that a module of the same name hides, and names that a user's module may not take."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from unspool.config.hidden_module import hidden_module, reserve_standard_names


@pytest.fixture
def users_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder at the end of the search path."""
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    return tmp_path


@pytest.fixture
def _same_modules() -> Iterator[None]:
    before = dict(sys.modules)
    yield
    for name in sys.modules.keys() - before.keys():
        del sys.modules[name]


@pytest.mark.parametrize(
    ("name", "owner"),
    [
        ("service", "this program's package"),
        ("json", "the standard library's module"),
        ("optax", "an installed package"),
    ],
)
def test_a_users_module_behind_another_of_the_same_name_is_found(
    users_folder: Path, name: str, owner: str
) -> None:
    path = users_folder / f"{name}.py"
    path.write_text("")
    assert hidden_module(name).startswith(f"{path} is hidden by {owner} of the same name (")


def test_a_builtin_module_hides_a_file(users_folder: Path) -> None:
    (users_folder / "itertools.py").write_text("")
    assert "the standard library's module of the same name" in hidden_module("itertools")


def test_a_module_of_its_own_name_is_not_hidden(users_folder: Path) -> None:
    (users_folder / "only_one_of_this_name.py").write_text("")
    assert hidden_module("only_one_of_this_name") == ""
    assert hidden_module("no_module_of_this_name") == ""
    assert hidden_module("optax") == ""


@pytest.mark.usefixtures("_same_modules")
def test_a_users_file_cannot_pose_as_a_module_of_another_system(tmp_path: Path) -> None:
    absent = "msvcrt" if sys.platform != "win32" else "termios"
    for name in (absent, "json", "users_own"):
        (tmp_path / f"{name}.py").write_text("value = 1")
    json = sys.modules.get("json")
    reserve_standard_names(str(tmp_path))
    with pytest.raises(ModuleNotFoundError):
        __import__(absent)
    assert sys.modules.get("json") is json
    assert "users_own" not in sys.modules
