"""Classes of the library are abstract or final."""

import importlib
import inspect
import pkgutil
from typing import Any

import pytest

import unspool
from unspool.tasks.base import Task


def library_classes() -> list[type]:
    """Every class that the library defines."""
    modules = [
        importlib.import_module(module.name) for module in pkgutil.walk_packages(unspool.__path__, "unspool.")
    ]
    found = {
        one
        for module in modules
        for one in vars(module).values()
        if inspect.isclass(one) and one.__module__ == module.__name__
    }
    return sorted(found, key=lambda one: f"{one.__module__}.{one.__qualname__}")


DEFAULTS = {
    "LearnedOptimizer": {"name"},
    "Optimizer": {"name", "get_params", "get_state", "set_params"},
    "Task": {"init", "loss", "loss_and_aux", "name", "normalizer"},
    "TaskFamily": {"eval_datasets", "eval_task_fn", "name"},
    "TruncatedStep": {"episodes", "get_batch", "label", "resident_data"},
    "TruncationSchedule": {"longest_episode", "mean_length", "next_state_lazily"},
}
"""Methods with a default that code written for the tutorials replaces: the whole list, by class."""

CLASSES = library_classes()
WITH_SUBCLASSES = [one for one in CLASSES if any(sub in CLASSES for sub in type.__subclasses__(one))]


def only_raises(method: Any) -> bool:
    """Whether a method stands for one that a subclass may define: its body is `raise NotImplementedError`."""
    return inspect.isfunction(method) and "raise NotImplementedError" in inspect.getsource(method)


def overridden(one: type) -> list[tuple[str, str]]:
    """The concrete methods and properties of the library that a class replaces, with their classes."""
    found = []
    for name, own in vars(one).items():
        if name.startswith("__") or not (inspect.isroutine(own) or isinstance(own, property | classmethod)):
            continue
        for parent in one.__mro__[1:]:
            theirs = vars(parent).get(name)
            if parent in CLASSES and theirs is not None:
                if not getattr(theirs, "__isabstractmethod__", False) and not only_raises(theirs):
                    found.append((parent.__name__, name))
                break
    return found


def depth(one: type) -> int:
    """How many classes of the library are above this one in its hierarchy, itself included."""
    return 1 + max((depth(parent) for parent in one.__bases__ if parent in CLASSES), default=0)


def test_no_class_is_more_than_three_deep() -> None:
    deeper = {one.__name__: depth(one) for one in CLASSES if depth(one) > 3}
    assert not deeper


def test_only_documented_defaults_are_overridden() -> None:
    found = {pair for one in CLASSES for pair in overridden(one)}
    assert found == {(parent, name) for parent, names in DEFAULTS.items() for name in names}


@pytest.mark.parametrize("one", WITH_SUBCLASSES, ids=lambda one: one.__name__)
def test_what_has_a_subclass_is_abstract(one: type) -> None:
    # A task defines one of several forms of its loss, which no single abstract method can say.
    assert inspect.isabstract(one) or issubclass(one, Exception) or one is Task
