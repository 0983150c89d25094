"""Modules shadowed by a module of the same name that is earlier on the search path."""

import importlib.util
import sys
from importlib.machinery import ModuleSpec, PathFinder
from typing import Final

PACKAGES: Final = ("unspool", "protos", "learner", "workers", "service")
"""The packages of this program."""


def hidden_module(name: str) -> str:
    """Return a description of what shadows the top-level module `name`; empty if nothing does."""
    taken = getattr(sys.modules.get(name), "__spec__", None) or PathFinder.find_spec(name)
    if taken is None:
        return ""
    for entry in reversed(sys.path):
        found = PathFinder.find_spec(name, [entry])
        if found is not None and _place(found) not in ("", _place(taken)):
            hiding = f"{_owner(name)} of the same name ({_place(taken) or 'built in'})"
            return f"{_place(found)} is hidden by {hiding}"
    return ""


def reserve_standard_names(directory: str) -> None:
    """Prevent modules in `directory`, which is not yet on the search path, from posing as standard modules.

    Some standard modules exist on other systems only: `import msvcrt` must still fail here.
    """
    for name in sys.stdlib_module_names:
        if PathFinder.find_spec(name, [directory]) and not _is_there(name):
            sys.modules[name] = None  # type: ignore[assignment]  # None makes imports fail


def _is_there(name: str) -> bool:
    return name in sys.modules or importlib.util.find_spec(name) is not None


def _owner(name: str) -> str:
    if name in PACKAGES:
        return "this program's package"
    if name in sys.stdlib_module_names:
        return "the standard library's module"
    return "an installed package"


def _place(spec: ModuleSpec) -> str:
    if spec.has_location:
        return spec.origin or ""
    return next(iter(spec.submodule_search_locations or ()), "")
