"""Configuration files as nested tables: reading, overriding, comparing, writing."""

import codecs
import copy
import os
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from unspool.config.config_error import ConfigError, Problem, ProblemList
from unspool.config.toml_values import as_toml, as_toml_key

Tables = dict[str, Any]

_BARE_WORD = re.compile(r"[A-Za-z_][\w.:/-]*")


def read_tables(path: Path) -> Tables:
    """Read the TOML file at `path`.

    Raises:
        ConfigError: the file cannot be read, or is not TOML.
    """
    try:
        written = path.read_bytes()
    except OSError as error:
        reason = error.strerror or str(error)
        raise ConfigError(Problem(str(path), None, f"cannot be read: {reason}")) from error
    return parse_tables(written, str(path))


def parse_tables(written: bytes, name: str) -> Tables:
    """Parse the bytes of a TOML file; error messages use `name`. A UTF-8 byte order mark is skipped.

    Raises:
        ConfigError: the text is not TOML.
    """
    try:
        return tomllib.loads(_decoded(written, name))
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(Problem(name, None, f"is not TOML: {error}")) from error


def _decoded(written: bytes, name: str) -> str:
    if written.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise ConfigError(Problem(name, None, "is UTF-16; TOML is UTF-8", "save it as UTF-8"))
    try:
        text = written.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = written.count(b"\n", 0, error.start) + 1
        rule = f"is not UTF-8: byte 0x{written[error.start]:02x} in line {line}"
        raise ConfigError(Problem(name, None, rule, "save it as UTF-8")) from error
    return text.replace("\r\n", "\n").replace("\r", "\n")


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
    """Return `tables` as TOML in canonical form: equal tables give equal text, regardless of their order."""
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
    try:
        written = os.fsencode(override).decode()  # in a locale without UTF-8 it arrives as escaped bytes
    except UnicodeError as error:
        raise ConfigError(Problem(f"--set {override}", None, "is not UTF-8")) from error
    key, equals, text = written.partition("=")
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
    """Set `value` at `path`; create missing tables on the way, but no list entries."""
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
