"""Run-time checks of the library's annotations during its tests."""

import sys
from collections.abc import Callable
from typing import Any

import jaxtyping
from beartype import BeartypeConf, beartype
from beartype.roar import BeartypeDecorHintPep673Exception

_IMPORTED_BEFORE: set[str] = set()
_CONFIGURATION = BeartypeConf(is_pep484_tower=True)  # accept an int for a float


def typechecked(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return `function` with checks of arguments and results. Constructors are excluded: they check their own
    arguments.
    """
    if function.__name__ == "__init__":
        return function
    try:
        checked: Callable[..., Any] = beartype(conf=_CONFIGURATION)(function)
    except BeartypeDecorHintPep673Exception:  # beartype does not support `Self` outside a class
        return function
    return checked


def check_annotations_of(package: str) -> None:
    """Check the annotations of modules of `package` that are imported from now on."""
    _IMPORTED_BEFORE.update(name for name in sys.modules if name.startswith(f"{package}."))
    jaxtyping.install_import_hook(package, f"{__name__}.typechecked")


def is_checked(module: str) -> bool:
    """Return whether `module` was imported with checks.

    A process that runs all tests imports most of the library for tests of other packages, before those of the
    library; `make test` runs the library's tests in a process of their own.
    """
    return module not in _IMPORTED_BEFORE
