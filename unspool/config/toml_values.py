"""Checks of TOML values against type annotations."""

import dataclasses
import inspect
import json
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any

_WORDS: Mapping[object, str] = types.MappingProxyType(
    {bool: "true or false", int: "an integer", float: "a number", str: "a string"}
)
_ANYTHING: tuple[object, ...] = (Any, object, inspect.Parameter.empty)


@dataclasses.dataclass(frozen=True)
class Parameter:
    """One argument of a target: its type, if it can be resolved, and whether it has no default."""

    annotation: Any
    is_required: bool


def parameters(target: Callable[..., Any]) -> dict[str, Parameter]:
    """Return the arguments that `target` accepts by keyword."""
    # A metaclass may accept any arguments and pass them to `__init__`, whose signature counts.
    initializer = typing.cast(Any, target).__init__
    has_initializer = isinstance(target, type) and initializer is not object.__init__
    function = initializer if has_initializer else target
    try:
        signature = inspect.signature(function, eval_str=True)
    except (NameError, TypeError, AttributeError):
        signature = inspect.signature(function)  # annotations for type checkers only; values are not checked
    by_keyword = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return {
        name: Parameter(parameter.annotation, parameter.default is inspect.Parameter.empty)
        for name, parameter in list(signature.parameters.items())[has_initializer:]
        if parameter.kind in by_keyword
    }


def alternatives(annotation: Any) -> tuple[Any, ...]:
    """Return the members of a (nested) union, or the annotation itself as the only member."""
    origin = typing.get_origin(annotation)
    if origin is typing.Annotated:
        return alternatives(typing.get_args(annotation)[0])
    if origin in (typing.Union, types.UnionType):
        return tuple(one for member in typing.get_args(annotation) for one in alternatives(member))
    return (annotation,)


def fits_plain(value: Any, annotation: Any) -> bool:
    """Return whether `value`, a TOML string, number or boolean, matches `annotation`."""
    if annotation in _ANYTHING or isinstance(annotation, str | typing.TypeVar):
        return True
    if typing.get_origin(annotation) is typing.Literal:
        return value in typing.get_args(annotation)
    if annotation is float:
        return type(value) in (int, float)
    return type(value) is annotation


def item_annotation(annotation: Any) -> Any | None:
    """Return the annotation of a list's items under `annotation`; None if a list does not match."""
    if annotation in _ANYTHING:
        return Any
    origin = typing.get_origin(annotation) or annotation
    if not (isinstance(origin, type) and issubclass(origin, Sequence)) or issubclass(origin, str):
        return None
    arguments = [argument for argument in typing.get_args(annotation) if argument is not Ellipsis]
    return typing.Union[tuple(arguments)] if arguments else Any  # noqa: UP007 (the members are known at run time only)


def is_mapping(annotation: Any) -> bool:
    """Return whether a table matches `annotation` without conversion."""
    origin = typing.get_origin(annotation) or annotation
    return annotation in _ANYTHING or (isinstance(origin, type) and issubclass(origin, Mapping))


def in_words(annotation: Any) -> str:
    """Return a description of the values that match `annotation`: "an integer or a string"."""
    return " or ".join(dict.fromkeys(map(_one_in_words, filter(_is_writable, alternatives(annotation)))))


def _is_writable(annotation: Any) -> bool:
    # JAX's unions of array-like types have many members, of which a file can hold only the numbers.
    from_arrays = getattr(annotation, "__module__", "").split(".")[0] in ("jax", "jaxlib", "numpy")
    return not from_arrays and annotation not in (types.NoneType, complex)


def _one_in_words(annotation: Any) -> str:
    if typing.get_origin(annotation) is typing.Literal:
        return "one of " + ", ".join(map(as_toml, typing.get_args(annotation)))
    if typing.get_origin(annotation) is Callable:
        return "a table whose `type` is a function"
    if annotation in _WORDS:
        return _WORDS[annotation]
    if item_annotation(annotation) is not None:
        return "a list"
    if is_mapping(annotation):
        return "a table"
    return f"a table whose `type` is a {getattr(annotation, '__name__', None) or 'component'}"


def as_toml(value: Any) -> str:
    """Return `value` in TOML syntax, with inline tables and lists."""
    match value:
        case bool():
            return "true" if value else "false"
        case str():
            # JSON's escapes are valid in TOML, but JSON does not escape DEL.
            return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007F")
        case Mapping():
            return (
                "{"
                + ", ".join(f"{as_toml_key(name)} = {as_toml(item)}" for name, item in value.items())
                + "}"
            )
        case list() | tuple():
            return "[" + ", ".join(map(as_toml, value)) + "]"
        case _:
            return str(value)  # the same for numbers, including inf and nan, and dates


def as_toml_key(name: str) -> str:
    """Return a key in TOML syntax, quoted only if necessary."""
    is_bare = name.isascii() and name.replace("-", "_").isidentifier()
    return name if is_bare else as_toml(name)
