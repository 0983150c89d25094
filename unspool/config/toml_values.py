"""Values of a TOML file against the annotations of what they are meant for."""

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
    """One argument of something that a table describes.

    Attributes:
        annotation: its type, as far as it can be resolved.
        is_required: it has no default.
    """

    annotation: Any
    is_required: bool


def parameters(target: Callable[..., Any]) -> dict[str, Parameter]:
    """Return the arguments that `target` can be given by keyword."""
    function, is_method = _implementation(target)
    try:
        signature = inspect.signature(function, eval_str=True)
    except (NameError, TypeError, AttributeError):
        signature = inspect.signature(
            function
        )  # with annotations for type checkers only: values go unchecked
    by_keyword = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return {
        name: Parameter(parameter.annotation, parameter.default is inspect.Parameter.empty)
        for name, parameter in list(signature.parameters.items())[is_method:]
        if parameter.kind in by_keyword
    }


def _implementation(target: Callable[..., Any]) -> tuple[Callable[..., Any], bool]:
    """The function whose signature `target` has, and whether it begins with `self`."""
    # A metaclass may take any arguments on its way to `__init__`, which is the one that knows.
    initializer = typing.cast(Any, target).__init__
    has_own = isinstance(target, type) and initializer is not object.__init__
    return (initializer, True) if has_own else (target, False)


def alternatives(annotation: Any) -> tuple[Any, ...]:
    """Return the members of a union, however nested; other annotations are their own only member."""
    origin = typing.get_origin(annotation)
    if origin is typing.Annotated:
        return alternatives(typing.get_args(annotation)[0])
    if origin in (typing.Union, types.UnionType):
        return tuple(one for member in typing.get_args(annotation) for one in alternatives(member))
    return (annotation,)


def fits_plain(value: Any, annotation: Any) -> bool:
    """Whether `value`, a TOML string, number or boolean, may be passed where `annotation` stands."""
    if annotation in _ANYTHING or isinstance(annotation, str | typing.TypeVar):
        return True
    if typing.get_origin(annotation) is typing.Literal:
        return value in typing.get_args(annotation)
    if annotation is float:
        return type(value) in (int, float)
    return type(value) is annotation


def item_annotation(annotation: Any) -> Any | None:
    """Return what `annotation` says of the items of a list; None if a list does not fit."""
    if annotation in _ANYTHING:
        return Any
    origin = typing.get_origin(annotation) or annotation
    if not (isinstance(origin, type) and issubclass(origin, Sequence)) or issubclass(origin, str):
        return None
    arguments = [argument for argument in typing.get_args(annotation) if argument is not Ellipsis]
    return typing.Union[tuple(arguments)] if arguments else Any  # noqa: UP007 (the members are known at run time only)


def is_mapping(annotation: Any) -> bool:
    """Whether a table may be passed as it is where `annotation` stands."""
    origin = typing.get_origin(annotation) or annotation
    return annotation in _ANYTHING or (isinstance(origin, type) and issubclass(origin, Mapping))


def in_words(annotation: Any) -> str:
    """Say what may be written where `annotation` stands: "an integer or a string"."""
    return " or ".join(dict.fromkeys(map(_one_in_words, filter(_is_writable, alternatives(annotation)))))


def _is_writable(annotation: Any) -> bool:
    # Unions of what JAX takes for an array list many types; their numbers are all that a file can hold.
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
    """Write `value` as TOML writes it, tables and lists inline."""
    match value:
        case bool():
            return "true" if value else "false"
        case str():
            # JSON's escapes are TOML's, but JSON leaves DEL as it is.
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
            return str(value)  # numbers, inf and nan included, and dates look the same


def as_toml_key(name: str) -> str:
    """Write the name of a value as TOML does: quoted only if it must be."""
    is_bare = name.isascii() and name.replace("-", "_").isidentifier()
    return name if is_bare else as_toml(name)
