"""The outer optimizer from its table: any optax optimizer by name, with schedules and gradient clipping."""

import inspect
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

import jax
import optax
import optax.contrib

from unspool.config.components import call
from unspool.config.config_error import ConfigError, Problem, ProblemList, did_you_mean
from unspool.config.toml_values import as_toml
from unspool.types import PyTree

_CLIPPING: Mapping[str, Callable[[float], optax.GradientTransformation]] = {
    "clip": optax.clip,
    "clip_norm": optax.clip_by_global_norm,
}


def build_outer_optimizer(table: Any, key: str) -> optax.GradientTransformation:
    """Build the optimizer that `table` describes.

    `type` names a function of `optax` or `optax.contrib`, the other keys are its arguments; `learning_rate`
    may be a table that describes an optax schedule. Before the optimizer, `clip` bounds each entry of the
    gradient and `clip_norm` its global norm.

    Raises:
        ConfigError: lists every problem of the table.
    """
    problems = ProblemList()
    clipping, given = [], {}
    with problems.gathered():
        optimizer_function = _optax_function(table, key, _optimizers(), "an optax optimizer")
    problems.raise_if_any()
    arguments = {name: value for name, value in table.items() if name != "type"}
    for name, transformation in _CLIPPING.items():
        with problems.gathered():
            if name in arguments:
                clipping.append(transformation(_positive(arguments.pop(name), f"{key}.{name}")))
    with problems.gathered():
        if isinstance(arguments.get("learning_rate"), Mapping):
            given["learning_rate"] = _build_schedule(arguments.pop("learning_rate"), f"{key}.learning_rate")
        optimizer = call(optimizer_function, arguments, key, given)
    problems.raise_if_any()
    return optax.chain(*clipping, optimizer)


def check_outer_optimizer(optimizer: optax.GradientTransformation, theta: PyTree, key: str) -> None:
    """Reject an optimizer that cannot update `theta`, a pytree of arrays or shapes, from a gradient alone.

    Raises:
        ConfigError: the optimizer needs other inputs, such as the loss function.
    """
    try:
        jax.eval_shape(lambda theta: optimizer.update(theta, optimizer.init(theta), theta), theta)
    except Exception as error:  # an optimizer that raises any error cannot be used
        rule = f"cannot be used as an outer optimizer: {error}"
        raise ConfigError(
            Problem(f"{key}.type", None, rule, "choose one that needs gradients only")
        ) from error


def _build_schedule(table: Mapping[str, Any], key: str) -> optax.Schedule:
    schedule_function = _optax_function(table, key, _schedules(), "an optax schedule")
    arguments = {name: value for name, value in table.items() if name != "type"}
    schedule: optax.Schedule = call(schedule_function, arguments, key)
    return schedule


def _optax_function(
    table: Any, key: str, known: Mapping[str, Callable[..., Any]], kind: str
) -> Callable[..., Any]:
    if not isinstance(table, Mapping):
        raise ConfigError(Problem(key, as_toml(table), f"must be a table whose `type` is {kind}"))
    name = table.get("type")
    if name is None:
        raise ConfigError(Problem(f"{key}.type", None, f"missing; name {kind}"))
    if name not in known:
        raise ConfigError(
            Problem(f"{key}.type", as_toml(name), f"is not {kind}", did_you_mean(str(name), known))
        )
    return known[name]


def _optimizers() -> dict[str, Callable[..., Any]]:
    return {
        name: function
        for name, function in {**_functions(optax.contrib), **_functions(optax)}.items()
        if "learning_rate" in inspect.signature(function).parameters and not name.startswith("scale_by_")
    }


def _schedules() -> dict[str, Callable[..., Any]]:
    """Return the functions of optax that are annotated to return a schedule."""
    return {
        name: function
        for name, function in _functions(optax).items()
        if inspect.signature(function).return_annotation == optax.Schedule and name != "join_schedules"
    }


def _functions(module: ModuleType) -> dict[str, Callable[..., Any]]:
    return {name: one for name, one in vars(module).items() if inspect.isfunction(one) and name[0] != "_"}


def _positive(value: Any, key: str) -> float:
    if type(value) not in (int, float) or not value > 0:
        raise ConfigError(Problem(key, as_toml(value), "must be a number above 0"))
    return float(value)
