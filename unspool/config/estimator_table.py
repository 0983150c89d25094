"""Gradient estimators from configuration tables.

The table is flat: it holds the arguments of the estimator and of the unrolled system, a learned optimizer
that trains `num_tasks` tasks of `task_family` with episodes of `truncation_schedule`. Any other system has a
table of its own, `truncated_step`.
"""

from collections.abc import Mapping
from typing import Any

from unspool.config.components import (
    Table,
    called,
    checked,
    checked_kind,
    component_type,
    name_of,
    nested_problems,
)
from unspool.config.config_error import ConfigError, Problem
from unspool.config.toml_values import Parameter, as_toml, parameters
from unspool.learned_optimizers.base import LearnedOptimizer
from unspool.outer_trainers.gradient_estimator import GradientEstimator
from unspool.outer_trainers.lopt_truncated_step import VectorizedLOptTruncatedStep
from unspool.outer_trainers.truncated_step import TruncatedStep, VectorizedStep, VectorizedTruncatedStep
from unspool.outer_trainers.truncation_schedule import NeverEndingTruncationSchedule, TruncationSchedule

_GIVEN_STEP = {
    "truncated_step": Parameter(TruncatedStep | VectorizedStep, is_required=True),
    "num_tasks": Parameter(int, is_required=False),
}


def build_estimator(table: Any, key: str, learned_optimizer: LearnedOptimizer | None) -> GradientEstimator:
    """Build the estimator of one `[[estimators]]` table, whose path is `key`.

    `learned_optimizer` trains the tasks of a flat table. A `ConfigError` lists every problem.
    """
    with nested_problems(table, key):
        estimator_type = component_type(table, key, GradientEstimator)
    own = parameters(estimator_type)
    arguments = {name: value for name, value in table.items() if name != "type"}
    if own.pop("truncated_step", None) is None:  # a user-defined estimator, which needs no step
        values = checked(arguments, own, key, name_of(estimator_type))
        made = called(estimator_type, values, arguments, key)
        users: GradientEstimator = checked_kind(made, table, key, GradientEstimator)
        return users
    of_step = _GIVEN_STEP if "truncated_step" in table else _learned_optimizer_parameters(own)
    values = checked(arguments, {**of_step, **own}, key, name_of(estimator_type))
    step_values = {name: values.pop(name) for name in of_step.keys() & values.keys() - own.keys()}
    if "truncated_step" in table:
        step = _given_step(step_values, arguments, key)
    else:
        step = _learned_optimizer_step(step_values, arguments, key, learned_optimizer)
    estimator: GradientEstimator = called(estimator_type, {**values, "truncated_step": step}, arguments, key)
    return estimator


def _learned_optimizer_parameters(own: Mapping[str, Parameter]) -> dict[str, Parameter]:
    known = parameters(VectorizedLOptTruncatedStep)
    del known["learned_opt"], known["trunc_sched"]
    if "truncation_schedule" not in own:
        known["truncation_schedule"] = Parameter(TruncationSchedule, is_required=True)
    return known


def _learned_optimizer_step(
    values: Mapping[str, Any], arguments: Table, key: str, learned_optimizer: LearnedOptimizer | None
) -> VectorizedStep:
    # An estimator that unrolls whole episodes uses the schedule itself; its step never ends an episode.
    schedule = values.get("truncation_schedule", NeverEndingTruncationSchedule())
    step_values = {name: value for name, value in values.items() if name != "truncation_schedule"}
    given = {"learned_opt": learned_optimizer, "trunc_sched": schedule}
    step: VectorizedStep = called(VectorizedLOptTruncatedStep, {**step_values, **given}, arguments, key)
    return step


def _given_step(values: Mapping[str, Any], arguments: Table, key: str) -> VectorizedStep:
    step: TruncatedStep | VectorizedStep = values["truncated_step"]
    num_tasks = values.get("num_tasks")
    if isinstance(step, VectorizedStep):
        if num_tasks is not None:
            rule = "truncated_step has its own number of tasks"
            raise ConfigError(Problem(f"{key}.num_tasks", as_toml(num_tasks), rule, "remove this one"))
        return step
    if num_tasks is None:
        rule = "missing; truncated_step is a single unroll; give the number of parallel unrolls"
        raise ConfigError(Problem(f"{key}.num_tasks", None, rule))
    vectorized = {"truncated_step": step, "num_tasks": num_tasks}
    built: VectorizedStep = called(VectorizedTruncatedStep, vectorized, arguments, key)
    return built
