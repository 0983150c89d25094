"""Run-time checks of the library's annotations during its tests."""

from collections.abc import Callable
from typing import Any

from beartype import BeartypeConf, beartype
from beartype.roar import BeartypeDecorHintPep673Exception

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
