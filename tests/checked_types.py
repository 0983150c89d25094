"""What checks the annotations of the library's functions while its tests run."""

from collections.abc import Callable
from typing import Any

from beartype import BeartypeConf, beartype
from beartype.roar import BeartypeDecorHintPep673Exception

_CONFIGURATION = BeartypeConf(is_pep484_tower=True)  # an int will do where a float is annotated


def typechecked(function: Callable[..., Any]) -> Callable[..., Any]:
    """Check arguments and results, but for constructors: they check their arguments by themselves."""
    if function.__name__ == "__init__":
        return function
    try:
        checked: Callable[..., Any] = beartype(conf=_CONFIGURATION)(function)
    except BeartypeDecorHintPep673Exception:  # `Self` means nothing outside a class
        return function
    return checked
