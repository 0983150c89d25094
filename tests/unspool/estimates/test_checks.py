"""Checks of theta, and of what systems and tasks return."""

import collections
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from unspool.estimates.checks import Kind, check_arrays, check_scalar, check_theta, check_unchanged

pytestmark = pytest.mark.unchecked


@pytest.mark.parametrize(
    ("theta", "message"),
    [
        ({"layers": [jnp.ones(2), jnp.arange(3)]}, r"theta\['layers'\]\[1\] is int32\[3\]"),
        ({"use_bias": True}, r"theta\['use_bias'\] is bool\[\]"),
        (jnp.ones(2, jnp.complex64), r"theta is complex64\[2\]"),
        ({"key": jax.random.key(0)}, r"theta\['key'\] is key<fry>\[\]"),
        ({"activation": "relu"}, r"theta\['activation'\] is a str"),
    ],
)
def test_a_theta_that_gradients_cannot_move_is_rejected_with_the_leaf(theta: Any, message: str) -> None:
    with pytest.raises(TypeError, match=rf"{message}: .*floating-point arrays; keep anything else"):
        check_theta(theta)


@pytest.mark.parametrize("theta", [{"w": jnp.ones(2, jnp.bfloat16)}, 1.0, jnp.zeros(())])
def test_a_theta_of_floats_is_accepted(theta: Any) -> None:
    check_theta(theta)


@pytest.mark.parametrize("theta", [{}, None, {"w": jnp.zeros((0, 3)), "b": np.zeros(0)}])
def test_a_theta_without_a_number_is_rejected(theta: Any) -> None:
    with pytest.raises(ValueError, match=r"theta is empty .*: there is nothing to meta-train"):
        check_theta(theta)


def test_shapes_are_checked_like_arrays() -> None:
    check_theta(jax.ShapeDtypeStruct((2,), jnp.float32))
    with pytest.raises(TypeError, match=r"theta is int32\[2\]"):
        check_theta(jax.ShapeDtypeStruct((2,), jnp.int32))


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (jnp.bfloat16(1), "floating-point number"),
        (1.0, "floating-point number"),
        (jnp.uint8(1), "integer"),
        (np.int64(1), "integer"),
        (True, "bool"),
    ],
)
def test_one_number_of_the_right_kind_is_accepted(value: Any, kind: Kind) -> None:
    check_scalar("the loss", value, kind, "take its mean")


@pytest.mark.parametrize(
    ("value", "kind", "given"),
    [
        (1, "floating-point number", r"int32\[\]"),
        (jnp.zeros(1), "floating-point number", r"float32\[1\]"),
        (1j, "floating-point number", r"complex64\[\]"),
        (True, "integer", r"bool\[\]"),
        (jnp.int32(0), "bool", r"int32\[\]"),
        (None, "bool", "a NoneType"),
    ],
)
def test_anything_else_is_rejected_with_what_is_required(value: Any, kind: Kind, given: str) -> None:
    with pytest.raises(TypeError, match=rf"the loss is {given}: it must be one {kind}, of shape \[\]; mean"):
        check_scalar("the loss", value, kind, "mean")


def test_leaves_that_are_no_arrays_are_named_with_their_place() -> None:
    check_arrays("a sample", {"x": np.zeros(3), "y": (1, True, None), "key": jax.random.key(0)}, "keep")
    with pytest.raises(TypeError, match=r"a sample is a str, at \['y'\]\[1\]: .*; keep it elsewhere"):
        check_arrays("a sample", {"x": 1, "y": (1, "relu")}, "keep it elsewhere")


BEFORE = {"x": jnp.zeros(3), "n": jnp.int32(0)}


def test_other_values_of_the_same_form_are_unchanged() -> None:
    check_unchanged("the state", BEFORE, {"x": np.ones(3, np.float32), "n": np.int32(7)})


@pytest.mark.parametrize(
    ("after", "message"),
    [
        (
            {"x": jnp.zeros(4), "n": jnp.int32(0)},
            r"the state\['x'\] was float32\[3\] and became float32\[4\]",
        ),
        ({"x": jnp.zeros(3), "n": jnp.int8(0)}, r"the state\['n'\] was int32\[\] and became int8\[\]"),
        ({"n": jnp.int32(0)}, r"the state\['x'\] was float32\[3\] and became missing"),
        ({**BEFORE, "z": 1.0}, r"the state\['z'\] was missing and became float32\[\]"),
        (collections.OrderedDict(BEFORE), r"the state had the structure .* and now has"),
    ],
)
def test_another_form_is_rejected_with_the_first_leaf_that_differs(after: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        check_unchanged("the state", BEFORE, after)
