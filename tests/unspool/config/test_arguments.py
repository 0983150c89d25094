"""Checks of constructor arguments: what is accepted, what is rejected, and the form of messages."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from unspool.config import arguments

ROUNDED_UP = {
    arguments.check_positive: 0.0,
    arguments.check_not_negative: -1e-9,
    arguments.check_decay: 1.0,
}
"""The number nearest to the accepted ones that each check rejects."""


@dataclasses.dataclass(frozen=True)
class Owner:
    """Holds any value in `field`."""

    field: Any


@pytest.mark.parametrize("value", [1, 7, np.int32(3), np.uint8(1)])
def test_whole_numbers_of_python_and_of_numpy_are_accepted(value: Any) -> None:
    arguments.check_whole_number(Owner(value), "field")


@pytest.mark.parametrize(
    ("value", "at_least", "message"),
    [
        (3.0, 1, r"Owner\(field=3.0\): field must be a whole number, of type int, so write 3$"),
        (2.5, 1, r"Owner\(field=2.5\): field must be a whole number, of type int$"),
        (True, 1, r"Owner\(field=True\): field must be a whole number"),
        (math.inf, 1, r"Owner\(field=inf\): field must be a whole number, of type int$"),
        (0, 1, r"Owner\(field=0\): field must be at least 1$"),
        (4, 5, r"field must be at least 5$"),
        (-1, 0, r"field must not be negative$"),
    ],
)
def test_other_values_than_whole_numbers_are_rejected(value: Any, at_least: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        arguments.check_whole_number(Owner(value), "field", at_least=at_least)


@pytest.mark.parametrize("check", ROUNDED_UP)
def test_a_check_of_numbers_rejects_the_nearest_number_out_of_range(check: Callable[..., None]) -> None:
    with pytest.raises(ValueError, match=r"^Owner\(field=.*\): field must "):
        check(Owner(ROUNDED_UP[check]), "field")


@pytest.mark.parametrize("value", [0.5, np.float32(0.5), np.float64(0.5)])
@pytest.mark.parametrize("check", [*ROUNDED_UP, arguments.check_finite])
def test_a_check_of_numbers_accepts_floats_of_python_and_of_numpy(
    check: Callable[..., None], value: Any
) -> None:
    check(Owner(value), "field")


@pytest.mark.parametrize("value", [math.nan, math.inf, "0.5", True, None])
@pytest.mark.parametrize("check", [*ROUNDED_UP, arguments.check_finite])
def test_a_check_of_numbers_rejects_what_is_not_a_finite_number(
    check: Callable[..., None], value: Any
) -> None:
    with pytest.raises(ValueError, match="field must be a finite number"):
        check(Owner(value), "field")


@pytest.mark.parametrize("value", [jnp.float32(-1.0), np.zeros(3)])
@pytest.mark.parametrize("check", [*ROUNDED_UP, arguments.check_finite])
def test_values_in_arrays_are_not_checked(check: Callable[..., None], value: Any) -> None:
    check(Owner(value), "field")


def test_zero_is_not_negative_and_a_decay_but_not_positive() -> None:
    arguments.check_not_negative(Owner(0), "field")
    arguments.check_decay(Owner(0), "field")
    with pytest.raises(ValueError, match=r"field must be positive, as theta holds its logarithm$"):
        arguments.check_positive(Owner(0), "field", ", as theta holds its logarithm")


def test_a_choice_lists_what_can_be_chosen() -> None:
    arguments.check_choice(Owner("one"), "field", ("one", "two"))
    with pytest.raises(ValueError, match=r"Owner\(field='three'\): choose one of 'one', 'two'$"):
        arguments.check_choice(Owner("three"), "field", ("one", "two"))


def test_a_class_in_place_of_its_instance_is_named_as_a_class() -> None:
    arguments.check_instance(Owner(3), "field", int, "give one")
    with pytest.raises(TypeError, match=r"\(field=the class int\): it must be an instance of int; give one$"):
        arguments.check_instance(Owner(int), "field", int, "give one")


def test_an_unhashable_value_is_rejected_with_the_reason() -> None:
    arguments.check_hashable(Owner((1, 2)), "field")
    with pytest.raises(TypeError, match=r"\(field=of type list\): .*frozen dataclass.*unhashable"):
        arguments.check_hashable(Owner([1, 2]), "field")
