"""How a table of the configuration states its rules."""

from typing import Any

from unspool.config_error import ConfigError, Problem
from unspool.toml_values import as_toml


def require(section: str, table: Any, *rules: tuple[str, bool, str]) -> None:
    """Raise a `ConfigError` with every rule `(key, holds, rule)` of `table` that does not hold."""
    broken = [
        Problem(f"{section}.{key}", as_toml(getattr(table, key)), rule)
        for key, holds, rule in rules
        if not holds
    ]
    if broken:
        raise ConfigError(*broken)
