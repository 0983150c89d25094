"""Configuration files as nested tables: reading, overriding single keys, comparing, writing."""

import copy
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from unspool.config_error import ConfigError, Problem, ProblemList
from unspool.toml_values import as_toml, as_toml_key

Tables = dict[str, Any]

_BARE_WORD = re.compile(r"[A-Za-z_][\w.:/-]*")


def read_tables(path: Path) -> Tables:
    """Read the TOML file at `path`.

    Raises:
        ConfigError: there is no such file, or it is not TOML.
    """
    try:
        return parse_tables(path.read_text(encoding="utf-8"), str(path))
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigError(Problem(str(path), None, f"cannot be read: {reason}")) from error


def parse_tables(text: str, name: str) -> Tables:
    """Parse `text`, which messages call `name`.

    Raises:
        ConfigError: it is not TOML.
    """
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(Problem(name, None, f"is not TOML: {error}")) from error


def with_overrides(tables: Mapping[str, Any], overrides: Sequence[str]) -> Tables:
    """Return `tables` with `key=value` overrides applied, e.g. `estimators.0.std=0.02`.

    Values are TOML; a bare word is taken as a string.

    Raises:
        ConfigError: with every override that cannot be applied.
    """
    changed = copy.deepcopy(dict(tables))
    problems = ProblemList()
    for override in overrides:
        with problems.gathered():
            path, value = _parse_override(override)
            _assign(changed, path, value, f"--set {override}")
    problems.raise_if_any()
    return changed


def changed_keys(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """Return the paths of the values in which two configurations differ, in order."""
    old, new = dict(_leaves(before, "")), dict(_leaves(after, ""))
    paths = [*old, *(path for path in new if path not in old)]
    return [path for path in paths if path not in old or path not in new or old[path] != new[path]]


def write_tables(tables: Mapping[str, Any]) -> str:
    """Return `tables` as TOML in canonical form: equal tables give equal text, whatever order they are in."""
    names = sorted(tables)
    plain = [name for name in names if not _is_section(tables[name])]
    lines = _lines({name: tables[name] for name in plain})
    for name in names:
        if name not in plain:
            is_list = isinstance(tables[name], list)
            heading = f"[[{as_toml_key(name)}]]" if is_list else f"[{as_toml_key(name)}]"
            for table in tables[name] if is_list else [tables[name]]:
                lines += ["", heading, *_lines(table)]
    return "\n".join(lines) + "\n"


def _lines(table: Mapping[str, Any]) -> list[str]:
    return [f"{as_toml_key(name)} = {as_toml(_sorted(table[name]))}" for name in sorted(table)]


def _parse_override(override: str) -> tuple[list[str | int], Any]:
    key, equals, text = override.partition("=")
    parts = [part for part in re.split(r"[.\[\]]+", key.strip()) if part]
    if not equals or not parts:
        raise ConfigError(Problem(f"--set {override}", None, "must have the form key=value"))
    path = [int(part) if part.isdecimal() else part for part in parts]
    try:
        return path, tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError as error:
        if _BARE_WORD.fullmatch(text.strip()):
            return path, text.strip()
        raise ConfigError(
            Problem(f"--set {override}", None, f"{text} is not a TOML value: {error}", "quote strings")
        ) from error


def _assign(tables: Tables, path: Sequence[str | int], value: Any, origin: str) -> None:
    """Put `value` at `path`; tables on the way are made, entries of lists must be there."""
    place: Any = tables
    for depth, part in enumerate(path):
        where = ".".join(map(str, path[:depth])) or "the configuration"
        is_last = depth == len(path) - 1
        if isinstance(place, dict):
            place[str(part)] = value if is_last else place.get(str(part), {})
            place = place[str(part)]
        elif isinstance(place, list):
            if not isinstance(part, int) or part >= len(place):
                raise ConfigError(Problem(origin, None, f"{where} has {len(place)} entries, counted from 0"))
            place[part] = value if is_last else place[part]
            place = place[part]
        else:
            raise ConfigError(Problem(origin, None, f"{where} is {as_toml(place)}, not a table"))


def _leaves(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for name, item in value.items():
            yield from _leaves(item, f"{path}.{name}" if path else name)
    elif isinstance(value, list) and any(isinstance(item, Mapping) for item in value):
        for index, item in enumerate(value):
            yield from _leaves(item, f"{path}[{index}]")
    else:
        yield path, value


def _is_section(value: Any) -> bool:
    is_tables = isinstance(value, list) and bool(value) and all(isinstance(item, Mapping) for item in value)
    return isinstance(value, Mapping) or is_tables


def _sorted(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _sorted(value[name]) for name in sorted(value)}
    return [_sorted(item) for item in value] if isinstance(value, list) else value
