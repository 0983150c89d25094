"""Strict JAX settings and annotation checks for the tests of the library."""

import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jaxtyping
import optax
import pytest

from tests import checked_types

checked_types.check_annotations_of("unspool")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run tests marked `with_x64` twice: with JAX's default types, and with 64-bit types."""
    if metafunc.definition.get_closest_marker("with_x64"):
        metafunc.parametrize("_precision", [False, True], indirect=True, ids=["x32", "x64"])


def pytest_itemcollected(item: pytest.Item) -> None:
    """Turn warnings into errors, and mark tests that differentiate through a learned Adam, and so through
    optax.
    """
    # JAX removes programs from weak dictionaries that `jax.clear_caches` has already emptied.
    weak = "ignore:Exception ignored in. <function WeakKeyDictionary:pytest.PytestUnraisableExceptionWarning"
    item.add_marker(pytest.mark.filterwarnings("error", weak))
    parameters = getattr(getattr(item, "callspec", None), "params", {})
    if {"TruncatedGrad", "FullGrad"}.intersection(map(str, parameters.values())):
        item.add_marker(pytest.mark.promoting)


@pytest.fixture(autouse=True)
def _precision(request: pytest.FixtureRequest) -> Iterator[bool]:
    """Return whether 64-bit types are enabled."""
    has_x64 = bool(getattr(request, "param", False))
    with jax.enable_x64(has_x64):
        yield has_x64


@pytest.fixture(autouse=True)
def _checked_annotations(request: pytest.FixtureRequest) -> Iterator[None]:
    """Check annotations, except in tests that pass invalid arguments to see them rejected by name."""
    jaxtyping.config.update("jaxtyping_disable", "unchecked" in request.keywords)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture(autouse=True)
def _strict_ranks_and_types(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, _precision: bool
) -> Iterator[None]:
    """Reject operations that promote ranks or mix types.

    Optax's own arithmetic is exempt: its bias corrections raise floats to the power of an int32 counter. With
    64-bit types all code is exempt: users of them combine float64 data with float32 parameters.
    """
    with_extra_args = optax.with_extra_args_support
    monkeypatch.setattr(optax, "apply_updates", _promoting(optax.apply_updates))
    monkeypatch.setattr(
        optax, "with_extra_args_support", lambda transformation: _relaxed(with_extra_args(transformation))
    )
    promotion = "standard" if _precision or "promoting" in request.keywords else "strict"
    with jax.numpy_rank_promotion("raise"), jax.numpy_dtype_promotion(promotion):
        yield


def _relaxed(transformation: Any) -> optax.GradientTransformationExtraArgs:
    return optax.GradientTransformationExtraArgs(transformation.init, _promoting(transformation.update))


def _promoting(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def promoting(*args: Any, **kwargs: Any) -> Any:
        with jax.numpy_dtype_promotion("standard"):
            return function(*args, **kwargs)

    return promoting
