import collections.abc
import dataclasses
from typing import Any, Literal

import pytest

from unspool.config.component_names import NAMES
from unspool.config.components import build, call, component_type
from unspool.config.config_error import ConfigError
from unspool.learned_optimizers.base import LearnableSGD, LearnedOptimizer
from unspool.outer_trainers.gradient_estimator import GradientEstimator
from unspool.outer_trainers.truncation_schedule import LogUniformLengthSchedule, TruncationSchedule
from unspool.tasks.base import SingleTaskFamily, TaskFamily
from unspool.tasks.quadratics import QuadraticTask

SCHEDULE = {"type": "LogUniformLengthSchedule", "min_length": 10, "max_length": 20}


@dataclasses.dataclass(frozen=True)
class Part:
    count: int
    share: float = 0.5
    label: str | None = None
    kind: Literal["soft", "hard"] = "soft"
    sizes: tuple[int, ...] = ()
    is_on: bool = False
    schedule: TruncationSchedule | None = None
    function: collections.abc.Callable[[int], int] | None = None

    def __post_init__(self) -> None:
        if self.count < 0:
            raise ValueError(f"Part(count={self.count}): count must not be negative")
        if self.count > 100 and self.share > 1:
            raise ValueError(f"Part(count={self.count}, share={self.share}): too much of both")


def problems_of(table: Any, kind: Any = Any) -> dict[str, str]:
    with pytest.raises(ConfigError) as caught:
        build(table, "part", kind)
    return {problem.key: str(problem) for problem in caught.value.problems}


def part(**arguments: Any) -> dict[str, Any]:
    return {"type": f"{__name__}:Part", "count": 1, **arguments}


@pytest.mark.parametrize("name", sorted(NAMES))
def test_every_name_of_the_library_names_something_that_can_be_built(name: str) -> None:
    assert callable(component_type({"type": name}, "component"))


def test_a_table_becomes_the_object_that_it_describes() -> None:
    assert build(SCHEDULE, "schedule", TruncationSchedule) == LogUniformLengthSchedule(10, 20)


def test_code_outside_the_library_is_named_by_module_and_class() -> None:
    assert build(part(count=3), "part") == Part(3)


def test_nested_tables_become_components() -> None:
    assert build(part(schedule=SCHEDULE), "part") == Part(1, schedule=LogUniformLengthSchedule(10, 20))


def test_a_list_becomes_a_hashable_tuple() -> None:
    assert hash(build(part(sizes=[1, 2]), "part")) == hash(Part(1, sizes=(1, 2)))


def test_an_integer_becomes_a_float_where_only_a_float_is_meant() -> None:
    share = build(part(share=1), "part").share
    assert (share, type(share)) == (1.0, float)


def test_a_task_stands_for_the_family_of_that_one_task() -> None:
    assert build({"type": "QuadraticTask"}, "family", TaskFamily) == SingleTaskFamily(QuadraticTask())


def test_given_arguments_need_not_be_in_the_table() -> None:
    assert call(Part, {"share": 0.25}, "part", {"count": 7}) == Part(7, 0.25)


@pytest.mark.parametrize(
    ("arguments", "key", "words"),
    [
        ({"cuont": 3}, "part.cuont", "did you mean count?"),
        ({"share": "a"}, "part.share", "must be a number"),
        ({"share": True}, "part.share", "must be a number"),
        ({"count": 1.5}, "part.count", "must be an integer"),
        ({"count": True}, "part.count", "must be an integer"),
        ({"label": 3}, "part.label", "must be a string"),
        ({"is_on": 1}, "part.is_on", "must be true or false"),
        ({"kind": "sfot"}, "part.kind", 'one of "soft", "hard"'),
        ({"sizes": 3}, "part.sizes", "must be a list"),
        ({"sizes": [1, "b"]}, "part.sizes[1]", "must be an integer"),
        ({"schedule": 3}, "part.schedule", "TruncationSchedule"),
        ({"schedule": {}}, "part.schedule", "TruncationSchedule"),
        ({"schedule": {"type": "LearnableSGD"}}, "part.schedule.type", "is a LearnableSGD"),
        ({"schedule": {**SCHEDULE, "max_length": "x"}}, "part.schedule.max_length", "must be an integer"),
        ({"count": -1}, "part.count", "count must not be negative"),
        ({"count": 101, "share": 1.5}, "part.count", "share=1.5): too much of both"),
        ({"function": 3}, "part.function", "function"),
    ],
)
def test_a_bad_argument_is_named_with_its_path(arguments: dict[str, Any], key: str, words: str) -> None:
    assert words in problems_of(part(**arguments))[key]


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ({"type": "LearnableSGDD"}, "did you mean LearnableSGD?"),
        ({"type": "no.such.module:Thing"}, "No module named"),
        ({"type": "unspool.config.components:Nothing"}, "Nothing"),
        ({"type": "unspool.config.component_names:NAMES"}, "is not a class or a function"),
        ({"type": "unspool.learned_optimizers.base:LearnedOptimizer"}, "is abstract"),
        ({"type": 3}, "must be a string"),
        ({}, "missing"),
    ],
)
def test_a_bad_type_is_named_with_the_nearest_that_exists(table: dict[str, Any], words: str) -> None:
    assert words in problems_of(table, LearnedOptimizer)["part.type"]


def test_a_component_that_is_no_table_is_rejected() -> None:
    assert "must be a table with a `type`" in problems_of("LearnableSGD", LearnedOptimizer)["part"]


def test_a_missing_argument_is_named() -> None:
    assert "missing" in problems_of({"type": f"{__name__}:Part"})["part.count"]


def test_all_problems_of_a_table_are_reported_at_once() -> None:
    schedule = {"type": "LogUniformLengthSchedul"}
    assert set(problems_of(part(cuont=3, share="a", schedule=schedule))) == {
        "part.cuont",
        "part.share",
        "part.schedule.type",
    }


def test_a_suggestion_is_of_the_wanted_kind() -> None:
    assert "FullES" not in problems_of({"type": "nothing like it"}, LearnedOptimizer)["part.type"]


def test_default_arguments_stay_defaults() -> None:
    assert build({"type": "LearnableSGD"}, "learned_optimizer", LearnedOptimizer) == LearnableSGD()


class Loud:
    """Not to be called where something else is wanted."""

    def __init__(self) -> None:
        raise AssertionError("it was called")


def test_what_cannot_be_what_is_wanted_is_not_even_called() -> None:
    problems = problems_of({"type": f"{__name__}:Loud"}, LearnedOptimizer)
    assert "is a Loud; expected a table whose `type` is a LearnedOptimizer" in problems["part.type"]


def test_an_unknown_type_does_not_hide_what_is_wrong_inside_it() -> None:
    table = {
        "type": "TruncatdPES",
        "task_family": {"type": "FixedDimQuadraticFamly", "dim": 3},
        "truncation_schedule": {"type": "ConstantTruncationSchedule", "total_lenght": 4},
        "others": [{"type": "Nothing"}, {"type": "ConstantTruncationSchedule", "total_length": 4}, 3],
        "std": 0.1,
    }
    with pytest.raises(ConfigError) as caught:
        build(table, "estimators[0]", GradientEstimator)
    assert {problem.key for problem in caught.value.problems} == {
        "estimators[0].type",
        "estimators[0].task_family.type",
        "estimators[0].truncation_schedule.total_lenght",
        "estimators[0].truncation_schedule.total_length",
        "estimators[0].others[0].type",
    }
