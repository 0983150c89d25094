"""Estimators from flat tables and from tables with a step of their own."""

import dataclasses
from typing import Any

import pytest

from unspool.config.config_error import ConfigError
from unspool.config.estimator_table import build_estimator
from unspool.learned_optimizers.base import LearnableSGD
from unspool.outer_trainers.full_es import FullES
from unspool.outer_trainers.lopt_truncated_step import VectorizedLOptTruncatedStep
from unspool.outer_trainers.truncated_pes import TruncatedPES
from unspool.outer_trainers.truncated_step import VectorizedStep, VectorizedTruncatedStep
from unspool.outer_trainers.truncation_schedule import (
    ConstantTruncationSchedule,
    NeverEndingTruncationSchedule,
)
from unspool.systems.lorenz import LorenzFit
from unspool.tasks.quadratics import FixedDimQuadraticFamily

LOPT = LearnableSGD()
LENGTH = {"type": "ConstantTruncationSchedule", "total_length": 6}
FLAT = {"task_family": {"type": "FixedDimQuadraticFamily", "dim": 3}, "num_tasks": 4}
OF_SYSTEM = {"type": "TruncatedPES", "truncated_step": {"type": "LorenzFit"}}


def step(schedule: Any, **options: Any) -> VectorizedLOptTruncatedStep:
    return VectorizedLOptTruncatedStep(FixedDimQuadraticFamily(3), LOPT, schedule, 4, **options)


def problems_of(table: dict[str, Any]) -> dict[str, str]:
    with pytest.raises(ConfigError) as caught:
        build_estimator(table, "e", LOPT)
    return {problem.key: str(problem) for problem in caught.value.problems}


def test_a_flat_table_holds_the_arguments_of_the_estimator_and_of_its_step() -> None:
    options = {"std": 0.5, "meta_loss_split": "train", "truncation_schedule": LENGTH}
    built = build_estimator({"type": "TruncatedPES", **FLAT, **options}, "e", LOPT)
    assert built == TruncatedPES(step(ConstantTruncationSchedule(6), meta_loss_split="train"), std=0.5)


def test_an_estimator_of_whole_episodes_takes_the_schedule_itself() -> None:
    built = build_estimator({"type": "FullES", **FLAT, "truncation_schedule": LENGTH}, "e", LOPT)
    assert built == FullES(step(NeverEndingTruncationSchedule()), ConstantTruncationSchedule(6))


def test_a_single_unroll_is_mapped_over_the_tasks() -> None:
    built = build_estimator({**OF_SYSTEM, "num_tasks": 5}, "e", None)
    assert built == TruncatedPES(VectorizedTruncatedStep(LorenzFit(), 5))


def made_step() -> VectorizedStep:
    """A component with its own number of tasks."""
    return VectorizedTruncatedStep(LorenzFit(), 3)


def test_a_step_of_several_tasks_keeps_its_number_of_tasks() -> None:
    table = {"type": "TruncatedPES", "truncated_step": {"type": f"{__name__}:made_step"}}
    assert build_estimator(table, "e", None) == TruncatedPES(made_step())
    assert (
        "has its own number of tasks (remove this one)"
        in problems_of({**table, "num_tasks": 3})["e.num_tasks"]
    )


def test_an_estimator_without_a_step_is_built_of_its_own_arguments() -> None:
    name = "tests.unspool.outer_trainers.test_users_estimators:Pull"
    assert vars(build_estimator({"type": name, "strength": 2.0}, "e", None))["strength"] == 2.0
    assert "num_tasks" in problems_of({"type": name, "num_tasks": 3})["e.num_tasks"]


def test_a_component_of_another_kind_is_rejected_by_its_type() -> None:
    assert "LearnableSGD" in problems_of({"type": "unspool.learned_optimizers.base:LearnableSGD"})["e.type"]


@pytest.mark.parametrize(
    ("table", "key", "words"),
    [
        ({"type": "TruncatedPES", **FLAT}, "e.truncation_schedule", "missing"),
        ({"type": "FullES", **FLAT}, "e.truncation_schedule", "missing"),
        (OF_SYSTEM, "e.num_tasks", "truncated_step is a single unroll"),
        ({**OF_SYSTEM, "num_tasks": 2, "task_family": {}}, "e.task_family", "TruncatedPES"),
        ({"type": "TruncatedPES", **FLAT, "truncation_schedule": LENGTH, "stdd": 1}, "e.stdd", "mean std?"),
    ],
)
def test_a_problem_of_the_table_is_named_by_its_key(table: dict[str, Any], key: str, words: str) -> None:
    assert words in problems_of(table)[key]


def test_every_option_of_a_step_can_be_given_in_a_flat_table() -> None:
    options = {field.name for field in dataclasses.fields(VectorizedLOptTruncatedStep)}
    options -= {"task_family", "num_tasks", "learned_opt", "trunc_sched"}
    table = {"type": "TruncatedPES", **FLAT, "truncation_schedule": LENGTH}
    problems = problems_of({**table, **{name: [[]] for name in options}})
    assert {f"e.{name}" for name in options} <= problems.keys()
    assert not any("unknown" in problem for problem in problems.values())
