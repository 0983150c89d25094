"""Components built from tables such as `{type = "TruncatedPES", trunc_length = 50, ...}`.

`type` is a name of the library (`unspool.config.component_names`) or `package.module:Class` for code outside
it; the other keys are constructor arguments, and nested tables with a `type` are components themselves. The
functions raise `ConfigError`, which lists all detectable problems with their keys.
"""

import contextlib
import importlib
import inspect
import re
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, Final

from unspool.config.component_names import NAMES, NAMES_BY_KIND
from unspool.config.config_error import ConfigError, Problem, ProblemList, did_you_mean
from unspool.config.hidden_module import hidden_module
from unspool.config.toml_values import (
    Parameter,
    alternatives,
    as_toml,
    fits_plain,
    in_words,
    is_mapping,
    item_annotation,
    parameters,
)

Table = Mapping[str, Any]

_NOTHING: Final[Mapping[str, Any]] = MappingProxyType({})
# The form of constructor errors in this project: "TruncatedPES(std=-0.1): std must be positive".
_CONSTRUCTOR_ERROR = re.compile(r"\w+\((?P<name>\w+)=(?P<values>.*?)\): (?P<rule>.*)", re.DOTALL)


def build(table: Any, key: str, kind: Any = Any, given: Mapping[str, Any] = _NOTHING) -> Any:
    """Build the component that `table` describes.

    Args:
        table: a table with a `type`.
        key: its path in the configuration, for messages.
        kind: the required class of the component, or any annotation.
        given: constructor arguments that are not in the table.
    """
    with nested_problems(table, key):
        target = component_type(table, key, kind)
        if isinstance(target, type) and not _may_make(target, kind):
            raise _wrong_kind(target, table, key, kind)
    arguments = {name: value for name, value in table.items() if name != "type"}
    return checked_kind(call(target, arguments, key, given), table, key, kind)


@contextlib.contextmanager
def nested_problems(table: Any, key: str) -> Iterator[None]:
    """Extend a `ConfigError` about the type of `table` by the problems of nested components.

    The arguments of an unknown type cannot be checked, but its nested components can be built.
    """
    try:
        yield
    except ConfigError as error:
        problems = ProblemList()
        with problems.gathered():
            raise error
        for name, value in table.items() if isinstance(table, Mapping) else ():
            with problems.gathered():
                _build_nested(value, f"{key}.{name}")
        problems.raise_if_any()


def _build_nested(value: Any, key: str) -> None:
    if isinstance(value, Mapping) and "type" in value:
        build(value, key)
    elif isinstance(value, list):
        _convert_items([item for item in value if isinstance(item, Mapping) and "type" in item], Any, key)


def component_type(table: Any, key: str, kind: Any = Any) -> Callable[..., Any]:
    """Return the class or function that the `type` of `table` names."""
    if not isinstance(table, Mapping):
        raise ConfigError(Problem(key, as_toml(table), "must be a table with a `type`"))
    if "type" not in table:
        raise ConfigError(Problem(f"{key}.type", None, "missing", _known_names(kind)))
    name = table["type"]
    if not isinstance(name, str):
        raise ConfigError(Problem(f"{key}.type", as_toml(name), "must be a string"))
    return _resolve(name, f"{key}.type", kind)


def call(target: Callable[..., Any], arguments: Table, key: str, given: Mapping[str, Any] = _NOTHING) -> Any:
    """Call `target` with the values of a table, checked against its signature, and with `given`."""
    known = {name: one for name, one in parameters(target).items() if name not in given}
    values = checked(arguments, known, key, name_of(target))
    return called(target, {**given, **values}, arguments, key)


def checked(arguments: Table, known: Mapping[str, Parameter], key: str, owner: str) -> dict[str, Any]:
    """Return the converted values of a table for `owner`, which takes the arguments `known`."""
    problems = ProblemList()
    with problems.gathered():
        check_names(arguments, known, key, owner)
    values: dict[str, Any] = {}
    for name in filter(known.__contains__, arguments):
        with problems.gathered():
            values[name] = convert(arguments[name], known[name].annotation, f"{key}.{name}")
    problems.raise_if_any()
    return values


def check_names(arguments: Table, known: Mapping[str, Parameter], key: str, owner: str) -> None:
    """Reject unknown and missing arguments of `owner`."""
    problems = ProblemList()
    for name, value in arguments.items():
        if name not in known:
            rule = f"{owner} has no such argument"
            problems.add(Problem(f"{key}.{name}", as_toml(value), rule, did_you_mean(name, known)))
    for name, parameter in known.items():
        if parameter.is_required and name not in arguments:
            rule = f"missing; {owner} needs {in_words(parameter.annotation)}"
            problems.add(Problem(f"{key}.{name}", None, rule))
    problems.raise_if_any()


def convert(value: Any, annotation: Any, key: str) -> Any:
    """Return `value` converted to the type `annotation` of an argument.

    Lists become tuples, which are hashable; integers become floats if only a float is allowed; tables with a
    `type` become components; a task becomes a family of that single task if a family is required.
    """
    kinds = alternatives(annotation)
    if isinstance(value, Mapping) and "type" in value:
        return build(value, key, annotation)
    if isinstance(value, Mapping) and any(map(is_mapping, kinds)):
        return dict(value)
    if isinstance(value, list):
        for item in filter(None, map(item_annotation, kinds)):
            return _convert_items(value, item, key)
    elif any(fits_plain(value, one) for one in kinds):
        return float(value) if type(value) is int and float in kinds and int not in kinds else value
    raise ConfigError(Problem(key, as_toml(value), f"must be {in_words(annotation)}"))


def called(target: Callable[..., Any], values: Mapping[str, Any], arguments: Table, key: str) -> Any:
    """Call `target` with converted values; its errors become problems of the table at `key`."""
    try:
        return target(**values)
    except (ValueError, TypeError, OSError) as error:
        raise refused(error, arguments, key) from error


def refused(error: Exception, arguments: Table, key: str) -> ConfigError:
    """Return a component's `error` as a problem of the table at `key`, or of the argument that it names."""
    if isinstance(error, ConfigError):
        return error
    match = _CONSTRUCTOR_ERROR.fullmatch(str(error))
    if match and match["name"] in arguments:
        name, is_about_several = match["name"], "=" in match["values"]
        rule = str(error) if is_about_several else match["rule"]
        return ConfigError(Problem(f"{key}.{name}", as_toml(arguments[name]), rule))
    return ConfigError(Problem(key, None, str(error) or type(error).__name__))


def checked_kind(component: Any, table: Table, key: str, kind: Any) -> Any:
    """Return `component` if it matches `kind`, or the family of a single task if `kind` is a family."""
    kinds = alternatives(kind)
    if any(_is_a(component, one) for one in kinds):
        return component
    family = _family_of(component)
    if family is not None and any(_is_a(family, one) for one in kinds):
        return family
    raise _wrong_kind(type(component), table, key, kind)


def _wrong_kind(given: type, table: Table, key: str, kind: Any) -> ConfigError:
    rule = f"is a {given.__name__}; expected {in_words(kind)}"
    return ConfigError(Problem(f"{key}.type", as_toml(table["type"]), rule, _known_names(kind)))


def _convert_items(items: Iterable[Any], annotation: Any, key: str) -> tuple[Any, ...]:
    problems = ProblemList()
    converted = []
    for index, item in enumerate(items):
        with problems.gathered():
            converted.append(convert(item, annotation, f"{key}[{index}]"))
    problems.raise_if_any()
    return tuple(converted)


def _resolve(name: str, key: str, kind: Any) -> Callable[..., Any]:
    place = NAMES.get(name, name)
    module_name, colon, attribute = place.partition(":")
    if not colon:
        raise ConfigError(
            Problem(key, as_toml(name), "is not a component of the library", _known_names(kind, name))
        )
    try:
        target = getattr(importlib.import_module(module_name), attribute)
    except (ImportError, AttributeError) as error:
        rule = f"cannot be imported: {error}"
        for module in (module_name, getattr(error, "name", None) or ""):
            hidden = hidden_module(module.partition(".")[0])
            if hidden:
                raise ConfigError(Problem(key, as_toml(name), f"{rule}; {hidden}", "rename yours")) from error
        remedy = "write package.module:Class, importable where the run is launched and on its workers"
        raise ConfigError(Problem(key, as_toml(name), rule, remedy)) from error
    if not callable(target):
        raise ConfigError(Problem(key, as_toml(name), "is not a class or a function"))
    if inspect.isabstract(target):
        raise ConfigError(Problem(key, as_toml(name), "is abstract", "name one of its implementations"))
    resolved: Callable[..., Any] = target
    return resolved


def _known_names(kind: Any, name: str = "") -> str:
    of_kind = [NAMES_BY_KIND.get(getattr(one, "__name__", ""), {}) for one in alternatives(kind)]
    known = {known for names in of_kind for known in names} or set(NAMES)
    return f"{did_you_mean(name, known)}; code outside the library is package.module:Class"


def _is_a(component: Any, kind: Any) -> bool:
    wanted = _class_of(kind)
    if wanted is None:
        return True
    if getattr(wanted, "_is_protocol", False):
        return callable(component)  # all protocols of the library describe functions
    return isinstance(component, wanted)


def _may_make(target: type, kind: Any) -> bool:
    """Return whether results of `target` may match `kind`, to avoid calls that cannot succeed."""
    from unspool.tasks.base import Task, TaskFamily  # reading tables needs no JAX

    wanted = [_class_of(one) for one in alternatives(kind)]
    stands_for_family = issubclass(target, Task) and TaskFamily in wanted
    return stands_for_family or any(
        one is None or getattr(one, "_is_protocol", False) or issubclass(target, one) for one in wanted
    )


def _class_of(kind: Any) -> type | None:
    """Return the class that instances must have; None for any."""
    wanted = typing.get_origin(kind) or kind
    return wanted if isinstance(wanted, type) and wanted is not Any else None


def _family_of(component: Any) -> Any | None:
    from unspool.tasks.base import Task, single_task_to_family  # reading tables needs no JAX

    return single_task_to_family(component) if isinstance(component, Task) else None


def name_of(target: Callable[..., Any]) -> str:
    """Return the name of `target` in messages."""
    return getattr(target, "__name__", repr(target))
