"""The registry of names agrees with the classes of the library."""

import importlib
import inspect
import pkgutil
from collections import Counter

import pytest

import unspool
from unspool.config.component_names import NAMES, NAMES_BY_KIND, PUBLIC_NAMES
from unspool.learned_optimizers.base import LearnedOptimizer
from unspool.outer_trainers.gradient_estimator import GradientEstimator
from unspool.outer_trainers.truncated_step import TruncatedStep
from unspool.outer_trainers.truncation_schedule import TruncationSchedule
from unspool.tasks.base import Task, TaskFamily

KINDS = {
    kind.__name__: kind
    for kind in (LearnedOptimizer, GradientEstimator, TruncationSchedule, TruncatedStep, TaskFamily, Task)
}
UNNAMED = {
    "FixedOptimizer",  # a baseline, without a theta to meta-train
    "ImageMLP",  # named once for each data set
    "SimpleLOptTruncatedStep",  # made by SimpleVecLOptTruncatedStep
    "SingleTaskFamily",  # made of a task
    "NoisyQuadraticTask",  # samples of families
    "NoisyTargetQuadraticTask",
    "TargetQuadraticTask",
}
"""Concrete components without a name of their own in configurations."""


def place(one: type) -> str:
    return f"{one.__module__}:{one.__name__}"


def concrete_classes(kind: type) -> set[str]:
    """The places of the library's concrete subclasses."""
    found, unseen = set(), [kind]
    while unseen:
        for one in unseen.pop().__subclasses__():
            unseen.append(one)
            if one.__module__.startswith("unspool.") and not inspect.isabstract(one):
                found.add(place(one))
    return found


@pytest.fixture(scope="module", autouse=True)
def _whole_library() -> None:
    for module in pkgutil.walk_packages(unspool.__path__, "unspool."):
        importlib.import_module(module.name)


def test_kinds_are_named_after_the_abstract_classes() -> None:
    assert NAMES_BY_KIND.keys() == KINDS.keys()


def test_every_concrete_component_can_be_named() -> None:
    places = {f"{getattr(unspool, name).__module__}:{getattr(unspool, name).__qualname__}" for name in NAMES}
    missing = set().union(*map(concrete_classes, KINDS.values())) - places
    assert {one.partition(":")[2] for one in missing} == UNNAMED


@pytest.mark.parametrize("kind", KINDS)
def test_names_lead_to_components_of_their_kind(kind: str) -> None:
    accepted = (Task, TaskFamily) if "Task" in kind else (KINDS[kind],)
    for name in NAMES_BY_KIND[kind]:
        one = getattr(unspool, name)
        assert not inspect.isclass(one) or issubclass(one, accepted), name


def test_no_name_has_two_meanings() -> None:
    tables = {id(names): names for names in NAMES_BY_KIND.values()}.values()
    assert Counter(name for names in tables for name in names).most_common(1)[0][1] == 1
    assert NAMES.items() <= PUBLIC_NAMES.items()
