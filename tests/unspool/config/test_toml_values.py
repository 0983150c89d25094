"""TOML values against annotations, and values written as TOML."""

import datetime
import inspect
import math
import tomllib
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

import jax.typing
import pytest

from unspool.config import toml_values

if TYPE_CHECKING:
    from decimal import Decimal


class Component:
    """The target of a table."""

    def __init__(self, count: int, *rest: int, share: float = 0.5, **others: Any) -> None:
        del count, rest, share, others


class WithoutInitializer:
    """A target that takes no arguments."""


class Calling(type):
    """A metaclass whose call accepts anything."""

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        return super().__call__(*args, **kwargs)


class Called(metaclass=Calling):
    """A target whose metaclass hides its signature."""

    def __init__(self, size: int = 3) -> None:
        del size


def unresolved(amount: "Decimal") -> None:
    """A function with an annotation for type checkers only."""


def test_parameters_are_those_that_can_be_given_by_keyword() -> None:
    found = toml_values.parameters(Component)
    assert {name: (one.annotation, one.is_required) for name, one in found.items()} == {
        "count": (int, True),
        "share": (float, False),
    }


def test_a_class_without_initializer_has_no_parameters() -> None:
    assert toml_values.parameters(WithoutInitializer) == {}


def test_parameters_are_those_of_the_initializer_and_not_of_a_metaclass() -> None:
    assert list(toml_values.parameters(Called)) == ["size"]


def test_an_annotation_that_cannot_be_resolved_accepts_any_value() -> None:
    annotation = toml_values.parameters(unresolved)["amount"].annotation
    assert toml_values.fits_plain(3, annotation)
    assert toml_values.fits_plain("three", annotation)


def test_nested_unions_are_flattened() -> None:
    nested = Annotated[int | (float | None), "of what"] | Literal["auto"]
    assert toml_values.alternatives(nested) == (int, float, type(None), Literal["auto"])
    assert toml_values.alternatives(str) == (str,)


@pytest.mark.parametrize(
    ("value", "annotation", "fits"),
    [
        (1, int, True),
        (True, int, False),
        (1, bool, False),
        (1, float, True),
        (True, float, False),
        ("1", float, False),
        ("soft", Literal["soft", "hard"], True),
        ("loud", Literal["soft", "hard"], False),
        ("anything", Any, True),
        (1, inspect.Parameter.empty, True),
        ("text", str, True),
        ("text", Component, False),
    ],
)
def test_a_plain_value_fits_annotations_of_its_type(value: Any, annotation: Any, fits: bool) -> None:
    assert toml_values.fits_plain(value, annotation) is fits


@pytest.mark.parametrize(
    ("annotation", "of_items"),
    [
        (list[int], int),
        (tuple[int, ...], int),
        (tuple[int, str], int | str),
        (Sequence[float], float),
        (list, Any),
        (Any, Any),
        (str, None),
        (int, None),
        (Mapping[str, int], None),
    ],
)
def test_items_of_a_list_have_the_annotation_of_its_arguments(annotation: Any, of_items: Any) -> None:
    assert toml_values.item_annotation(annotation) == of_items


@pytest.mark.parametrize(
    ("annotation", "is_mapping"), [(dict[str, int], True), (Mapping, True), (Any, True), (list, False)]
)
def test_a_table_fits_mappings(annotation: Any, is_mapping: bool) -> None:
    assert toml_values.is_mapping(annotation) is is_mapping


@pytest.mark.parametrize(
    ("annotation", "words"),
    [
        (int | str | None, "an integer or a string"),
        (bool, "true or false"),
        (Literal["a", 2], 'one of "a", 2'),
        (list[int] | tuple[int, ...], "a list"),
        (dict[str, int], "a table"),
        (Component, "a table whose `type` is a Component"),
        (Callable[[int], int], "a table whose `type` is a function"),
    ],
)
def test_annotations_are_described_by_the_values_that_fit(annotation: Any, words: str) -> None:
    assert toml_values.in_words(annotation) == words


def test_types_that_a_file_cannot_hold_are_left_out_of_a_description() -> None:
    assert toml_values.in_words(jax.typing.ArrayLike) == "true or false or an integer or a number"


VALUES = {
    "bool": True,
    "integer": -3,
    "float": 1e-30,
    "infinite": -math.inf,
    "text": 'tab\t, quote " and backslash \\, DEL \x7f, é',
    "list": [1, [2, "x"], {}],
    "table": {"bare-key_1": 1, "dotted.key": {"": "empty"}, "with space": [], "é": 0},
    "date": datetime.date(2026, 11, 28),
}


@pytest.mark.parametrize("name", VALUES)
def test_a_toml_reader_reads_what_is_written(name: str) -> None:
    assert tomllib.loads(f"value = {toml_values.as_toml(VALUES[name])}")["value"] == VALUES[name]


@pytest.mark.parametrize("key", ["plain", "with-dash", "1st", "dotted.key", "", 'quo"te', "é"])
def test_a_toml_reader_reads_keys_that_are_written(key: str) -> None:
    assert tomllib.loads(f"{toml_values.as_toml_key(key)} = 1") == {key: 1}
