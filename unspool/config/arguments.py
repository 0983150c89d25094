"""Checks of constructor arguments.

`check_instance` and `check_hashable` raise TypeError, the others ValueError. Messages have the form
`Class(field=value): rule`, which the configuration reader parses to name the invalid key. Numbers in JAX or
NumPy arrays are not checked, because traced arrays have no values.
"""

import math
import numbers
from collections.abc import Collection
from typing import Any

import jax
import numpy as np


def refusal(owner: object, field: str, rule: str) -> ValueError:
    """Return the error for the argument `field` of `owner` that violates `rule`."""
    return ValueError(_message(owner, field, repr(getattr(owner, field)), rule))


def check_whole_number(owner: object, *fields: str, at_least: int = 1) -> None:
    """Reject values other than integers (no bools, no 2.0) of at least `at_least`."""
    for field in fields:
        value = getattr(owner, field)
        if isinstance(value, bool) or not isinstance(value, numbers.Integral):
            is_whole = isinstance(value, float) and value.is_integer()
            remedy = f", so write {int(value)}" if is_whole else ""
            raise refusal(owner, field, f"{field} must be a whole number, of type int{remedy}")
        if value < at_least:
            rule = f"must be at least {at_least}" if at_least else "must not be negative"
            raise refusal(owner, field, f"{field} {rule}")


def check_positive(owner: object, field: str, reason: str = "") -> None:
    """Reject values other than finite numbers above 0; `reason` ends the message."""
    value = _number(owner, field)
    if value is not None and value <= 0:
        raise refusal(owner, field, f"{field} must be positive{reason}")


def check_not_negative(owner: object, *fields: str) -> None:
    """Reject values other than finite numbers of at least 0."""
    for field in fields:
        value = _number(owner, field)
        if value is not None and value < 0:
            raise refusal(owner, field, f"{field} must not be negative")


def check_decay(owner: object, *fields: str) -> None:
    """Reject values other than numbers in [0, 1), such as the decay of a moving average."""
    for field in fields:
        value = _number(owner, field)
        if value is not None and not 0 <= value < 1:
            raise refusal(owner, field, f"{field} must be in [0, 1)")


def check_finite(owner: object, *fields: str) -> None:
    """Reject values other than finite numbers."""
    for field in fields:
        _number(owner, field)


def check_choice(owner: object, field: str, choices: Collection[Any]) -> None:
    """Reject a value that is not in `choices`."""
    if getattr(owner, field) not in tuple(choices):
        raise refusal(owner, field, f"choose one of {', '.join(map(repr, choices))}")


def check_instance(owner: object, field: str, kind: type, remedy: str) -> None:
    """Reject a value that is not an instance of `kind`, such as the class itself."""
    value = getattr(owner, field)
    if not isinstance(value, kind):
        given = f"the class {value.__name__}" if isinstance(value, type) else repr(value)
        raise TypeError(_message(owner, field, given, f"it must be an instance of {kind.__name__}; {remedy}"))


def check_hashable(owner: object, *fields: str) -> None:
    """Reject values that cannot be part of the key of a compiled program."""
    for field in fields:
        value = getattr(owner, field)
        try:
            hash(value)
        except TypeError as error:
            rule = (
                "it must be hashable, because programs are compiled once for equal values; make it a frozen "
                f"dataclass of plain values and keep arrays out of its fields ({error})"
            )
            raise TypeError(_message(owner, field, f"of type {type(value).__name__}", rule)) from error


def _number(owner: object, field: str) -> float | None:
    """Return the argument, or None if it is an array."""
    value = getattr(owner, field)
    if isinstance(value, jax.Array | np.ndarray):
        return None
    if isinstance(value, bool) or not isinstance(value, numbers.Real) or not math.isfinite(value):
        raise refusal(owner, field, f"{field} must be a finite number")
    return float(value)


def _message(owner: object, field: str, given: str, rule: str) -> str:
    return f"{type(owner).__name__}({field}={given}): {rule}"
