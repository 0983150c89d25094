"""Restricts which classes a learner's configuration may name, because a worker imports them."""

import sys
from collections.abc import Iterator
from typing import Any, Final

from protos.exit_codes import RefusedError

COMPONENT_PACKAGES: Final = "UNSPOOL_COMPONENT_PACKAGES"
"""Packages that components may come from, separated by commas; unset: any except the standard library."""


def check_components(tables: Any, allowed: str) -> None:
    """Reject components from the standard library or from packages that are not allowed.

    No component is a class of the standard library, but `subprocess:Popen` would be one and could run
    anything. If a worker does not trust its learner, `allowed` limits components to the named packages.

    Args:
        tables: of the experiment.
        allowed: the value of `COMPONENT_PACKAGES`, or empty.

    Raises:
        RefusedError: a component is not allowed; the message names it and the remedy.
    """
    packages = {package.strip() for package in allowed.split(",") if package.strip()}
    for name in _component_names(tables):
        package = name.partition(":")[0].partition(".")[0]
        if packages and package not in packages:
            rule = f"${COMPONENT_PACKAGES} = {allowed} does not have {package}; add it if you trust it"
        elif package in sys.stdlib_module_names:
            rule = "it is part of Python itself, not a component"
        else:
            continue
        raise RefusedError(f"this worker does not run {name} for the learner: {rule}")


def _component_names(value: Any) -> Iterator[str]:
    """Yield every `package.module:Class` of nested tables."""
    if isinstance(value, dict):
        name = value.get("type")
        if isinstance(name, str) and ":" in name:
            yield name
        for one in value.values():
            yield from _component_names(one)
    elif isinstance(value, list):
        for one in value:
            yield from _component_names(one)
