"""Compares the numerics that a process's environment sets with those of its run's configuration.

Theta is a function of the configuration, so the configuration wins: `pin` enforces it before JAX is imported.
A JAX variable that is not known to be harmless is assumed to affect results. Nothing here imports JAX.
"""

import dataclasses
import json
import os
import shlex
import sys
from collections.abc import Iterator, Mapping, MutableMapping
from typing import Any, Final

from unspool.config.numerics import OPTIONS, Numerics, is_library_variable
from unspool.config.toml_values import as_toml

RECORD: Final = "UNSPOOL_NUMERICS"
"""Holds the run's `[numerics]` as JSON in workers that a supervisor starts; others receive them at Join."""

_XLA_FLAGS: Final = "XLA_FLAGS"
_KEY_OF: Final = {option.upper(): key for key, option in OPTIONS.items()}

# Variables for caching, logging and debugging, and for devices, which the table [workers] configures.
_HARMLESS: Final = frozenset(
    {
        "JAX_CAPTURED_CONSTANTS_REPORT_FRAMES",
        "JAX_CAPTURED_CONSTANTS_WARN_BYTES",
        "JAX_COMPILER_DETAILED_LOGGING_MIN_OPS",
        "JAX_CUDA_VISIBLE_DEVICES",
        "JAX_DEBUG_LOG_MODULES",
        "JAX_DISTRIBUTED_DEBUG",
        "JAX_DUMP_IR_MODES",
        "JAX_DUMP_IR_TO",
        "JAX_ENABLE_COMPILATION_CACHE",
        "JAX_EXPLAIN_CACHE_MISSES",
        "JAX_HLO_SOURCE_FILE_CANONICALIZATION_REGEX",
        "JAX_INCLUDE_DEBUG_INFO_IN_DUMPS",
        "JAX_INCLUDE_FULL_TRACEBACKS_IN_LOCATIONS",
        "JAX_LOGGING_LEVEL",
        "JAX_LOG_CHECKPOINT_RESIDUALS",
        "JAX_LOG_COMPILES",
        "JAX_NUM_CPU_DEVICES",
        "JAX_ONEAPI_VISIBLE_DEVICES",
        "JAX_PLATFORMS",
        "JAX_PPRINT_USE_COLOR",
        "JAX_ROCM_VISIBLE_DEVICES",
        "JAX_SOURCE_URL_SCHEMA",
        "JAX_TRACEBACK_FILTERING",
        "JAX_TRACEBACK_IN_LOCATIONS_LIMIT",
        "JAX_TRACER_ERROR_NUM_TRACEBACK_FRAMES",
    }
)
_HARMLESS_PREFIXES: Final = ("JAX_COMPILATION_CACHE_", "JAX_PERSISTENT_CACHE_")
_CPU_DEVICES_FLAG: Final = "--xla_force_host_platform_device_count"  # JAX_NUM_CPU_DEVICES overrules it
_HARMLESS_FLAGS: Final = (
    _CPU_DEVICES_FLAG,
    "--xla_dump_",
    "--xla_gpu_cuda_data_dir",
    "--xla_gpu_force_compilation_parallelism",
    "--xla_gpu_per_fusion_autotune_cache_dir",
    "--xla_hlo_profile",
    "--xla_log_",
)


@dataclasses.dataclass(frozen=True)
class Foreign:
    """A variable that would make a process compute differently from its run.

    Attributes:
        variable: its name.
        value: the process's value, as far as it matters; None: the variable is unset.
        key: the configuration key that decides instead; empty: JAX's default does.
        wanted: the configured value; None: nothing is configured.
    """

    variable: str
    value: str | None
    key: str
    wanted: str | None

    def __str__(self) -> str:
        return "{}; {}".format(*self.consequence)

    @property
    def consequence(self) -> tuple[str, str]:
        """What happens to the variable, and what decides instead."""
        text = f"{self.variable}={shlex.quote(self.value or '')} is ignored by every process of a run"
        if not self.key:
            return text, "theta could depend on it: the default of JAX is taken"
        return text, f"{self.key} decides, which is {self.wanted or 'unset'}"

    @property
    def remedy(self) -> str:
        """How to start a process that computes as the run does."""
        if self.wanted is None:
            return f"start it without {self.variable} in its environment"
        return f"start it with {self.variable}={shlex.quote(self.wanted)} in its environment"


def foreign_variables(numerics: Numerics, environ: Mapping[str, str]) -> list[Foreign]:
    """Return the variables of `environ` that would make a process compute differently from `numerics`."""
    variables = [*_foreign_options(numerics, environ), *foreign_to_libraries(numerics, environ)]
    return [foreign for foreign in variables if foreign.value is not None]


def cpu_devices_flag(environ: Mapping[str, str]) -> str:
    """Return the XLA flag that sets the number of CPU devices; empty if there is none."""
    return next((flag for flag in _flags(environ) if flag.startswith(_CPU_DEVICES_FLAG)), "")


def pin(numerics: Numerics, environ: MutableMapping[str, str] = os.environ) -> list[Foreign]:
    """Make this process compute according to `numerics`; return the variables that were different.

    Call it before JAX is imported. If JAX is already imported, only JAX's own options take effect.

    Args:
        numerics: of the run's configuration.
        environ: is changed.
    """
    foreign = foreign_variables(numerics, environ)
    flags = [*_harmless_flags(environ), *_deciding_flags(numerics.environment)]
    for name in [name for name in environ if _is_option(name) or is_library_variable(name)]:
        del environ[name]
    environ.update(numerics.environment)
    if flags:
        environ[_XLA_FLAGS] = shlex.join(flags)
    deciding = numerics.deciding()
    environ.update({name: _as_variable(deciding[key]) for name, key in _KEY_OF.items() if key in deciding})
    if "jax" in sys.modules:
        numerics.apply()
    return foreign


def record(numerics: Numerics) -> dict[str, str]:
    """Return the variable that passes the run's numerics to a worker's process."""
    return {RECORD: json.dumps(numerics.deciding())}


def pin_worker(environ: MutableMapping[str, str] = os.environ) -> list[Foreign]:
    """Pin a worker's process before JAX is imported, as far as the run's numerics are known.

    A worker not started by the run's supervisor ignores its environment's JAX options, which it receives at
    Join, and keeps the variables that libraries read, which are compared at Join.
    """
    recorded = environ.get(RECORD)
    if recorded is not None:
        return pin(Numerics(**json.loads(recorded)), environ)
    kept = {name: value for name, value in environ.items() if is_library_variable(name)}
    foreign = pin(Numerics(environment=kept), environ)
    return [dataclasses.replace(one, wanted="set by the learner") for one in foreign]


def _foreign_options(numerics: Numerics, environ: Mapping[str, str]) -> Iterator[Foreign]:
    for name in sorted(filter(_is_option, environ)):
        key, value = _KEY_OF.get(name, ""), environ[name]
        if not key:
            yield Foreign(name, value, "", None)
        elif _normal(value) != _normal(_as_variable(getattr(numerics, key))):
            wanted = getattr(numerics, key)
            yield Foreign(name, value, f"numerics.{key}", None if wanted is None else as_toml(wanted))


def foreign_to_libraries(numerics: Numerics, environ: Mapping[str, str]) -> Iterator[Foreign]:
    """Yield the foreign variables that cannot be changed once XLA has read them."""
    names = {name for name in environ if is_library_variable(name)} | set(numerics.environment)
    for name in sorted(names):
        key, value, wanted = f"numerics.environment.{name}", environ.get(name), numerics.environment.get(name)
        if name == _XLA_FLAGS:
            own, runs = _deciding_flags(environ), _deciding_flags(numerics.environment)
            value, wanted = shlex.join(own) or None, shlex.join(runs) or None
        if value != wanted:
            yield Foreign(name, value, key, wanted)


def _is_option(name: str) -> bool:
    """Whether JAX may read an option that affects results from the variable `name`."""
    return name.startswith("JAX_") and name not in _HARMLESS and not name.startswith(_HARMLESS_PREFIXES)


def _flags(environ: Mapping[str, str]) -> list[str]:
    # An entry that does not begin with a dash is the name of a file with flags.
    return shlex.split(environ.get(_XLA_FLAGS, ""))


def _harmless_flags(environ: Mapping[str, str]) -> list[str]:
    return [flag for flag in _flags(environ) if flag.startswith(_HARMLESS_FLAGS)]


def _deciding_flags(environ: Mapping[str, str]) -> list[str]:
    return [flag for flag in _flags(environ) if not flag.startswith(_HARMLESS_FLAGS)]


def _as_variable(value: Any) -> str:
    return str(int(value)) if isinstance(value, bool) else str(value)


def _normal(value: str) -> str:
    lower = value.lower()
    if lower in ("y", "yes", "t", "true", "on"):
        return "1"
    return "0" if lower in ("n", "no", "f", "false", "off") else lower
