"""The settings of JAX and of its libraries that affect the bits of theta.

The module does not import JAX before `Numerics.apply`, so that a supervisor can read the settings.
"""

import dataclasses
import types
from collections.abc import Mapping
from typing import Any, Final, Literal, Self

from unspool.config.components import called, checked
from unspool.config.config_error import ConfigError, Problem
from unspool.config.toml_values import as_toml, parameters

OPTIONS: Final[Mapping[str, str]] = types.MappingProxyType(
    {
        "threefry_partitionable": "jax_threefry_partitionable",
        "prng_impl": "jax_default_prng_impl",
        "enable_x64": "jax_enable_x64",
        "matmul_precision": "jax_default_matmul_precision",
        "dtype_promotion": "jax_numpy_dtype_promotion",
        "rank_promotion": "jax_numpy_rank_promotion",
        "debug_nans": "jax_debug_nans",
        "debug_infs": "jax_debug_infs",
    }
)
"""JAX's option for each key of `Numerics` but `environment`."""

DIAGNOSTIC: Final = frozenset({"dtype_promotion", "rank_promotion", "debug_nans", "debug_infs"})
"""Keys that only make a program raise errors, and do not change its results."""

_LIBRARY_VARIABLES: Final = frozenset(
    {
        "XLA_FLAGS",
        "LIBTPU_INIT_ARGS",
        "NVIDIA_TF32_OVERRIDE",
        "TF_CUDNN_DETERMINISTIC",
        "TF_DETERMINISTIC_OPS",
        "TF_ENABLE_CUBLAS_TENSOR_OP_MATH_FP32",
        "TF_ENABLE_CUDNN_TENSOR_OP_MATH_FP32",
        "TF_ENABLE_CUDNN_RNN_TENSOR_OP_MATH_FP32",
        "TF_XLA_FLAGS",
        "EAGER_CONSTANT_FOLDING",
        "CHECK_VMA",
        "OPENBLAS_CORETYPE",
        "MKL_CBWR",
        "NPY_DISABLE_CPU_FEATURES",
        "NPY_ENABLE_CPU_FEATURES",
    }
)
_LIBRARY_PREFIXES: Final = (
    "CUBLAS_",
    "CUBLASLT_",
    "CUDNN_",
    "ROCBLAS_",
    "HIPBLASLT_",
    "MIOPEN_",
    "ONEDNN_",
    "DNNL_",
)
_REPORTS: Final = ("_LOG", "VERBOSE", "_DUMP")


def is_library_variable(name: str) -> bool:
    """Return whether the variable `name` configures the computations of XLA or of a library below it."""
    reports = any(part in name for part in _REPORTS)
    return name in _LIBRARY_VARIABLES or (name.startswith(_LIBRARY_PREFIXES) and not reports)


@dataclasses.dataclass(frozen=True)
class Numerics:
    """The numerical settings of every process of a run; the defaults are JAX's own.

    Attributes:
        threefry_partitionable: which of the two random streams the threefry generator produces.
        prng_impl: the random number generator.
        enable_x64: whether 64-bit types are enabled.
        matmul_precision: precision of matrix products and convolutions; None for the device's default.
        dtype_promotion: "strict" rejects operations between different types.
        rank_promotion: "raise" rejects operations between arrays of different rank, "warn" warns.
        debug_nans: whether to raise on NaNs.
        debug_infs: whether to raise on infinities.
        environment: environment variables of XLA and the libraries below it, such as `XLA_FLAGS`; variables
            not listed here are unset in the processes of a run.
    """

    threefry_partitionable: bool = True
    prng_impl: Literal["threefry2x32", "rbg", "unsafe_rbg"] = "threefry2x32"
    enable_x64: bool = False
    matmul_precision: Literal["default", "high", "highest", "bfloat16", "tensorfloat32", "float32"] | None = (
        None
    )
    dtype_promotion: Literal["standard", "strict"] = "standard"
    rank_promotion: Literal["allow", "warn", "raise"] = "allow"
    debug_nans: bool = False
    debug_infs: bool = False
    environment: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        problems = []
        for name, value in self.environment.items():
            key, given = f"numerics.environment.{name}", as_toml(value)
            if not is_library_variable(name):
                rule = "is not a variable that decides how XLA or a library below it computes"
                problems.append(Problem(key, given, rule, "options of JAX itself are keys of [numerics]"))
            elif not isinstance(value, str):
                problems.append(Problem(key, given, "must be text"))
        if problems:
            raise ConfigError(*problems)

    @classmethod
    def from_tables(cls, tables: Mapping[str, Any]) -> Self:
        """Return the settings of the table `numerics` of a configuration; the defaults if there is none.

        Raises:
            ConfigError: lists every problem of the table.
        """
        table = tables.get("numerics", {})
        if not isinstance(table, Mapping):
            raise ConfigError(Problem("numerics", as_toml(table), "must be a table, [numerics]"))
        values = checked(table, parameters(cls), "numerics", "[numerics]")
        made: Self = called(cls, values, table, "numerics")
        return made

    def deciding(self) -> dict[str, Any]:
        """Return the settings that differ from the defaults; empty for runs that predate this table."""
        default = Numerics()
        fields = dataclasses.asdict(self)
        return {name: value for name, value in fields.items() if value != getattr(default, name)}

    def options(self) -> dict[str, Any]:
        """Return the values of JAX's options, by name."""
        return {option: getattr(self, key) for key, option in OPTIONS.items()}

    def check_applied(self) -> None:
        """Check that JAX's options have not changed since `apply`, for example by a component's module.

        Raises:
            ConfigError: names the key of every option with a different value.
        """
        import jax

        problems = [
            Problem(
                f"numerics.{key}",
                None if getattr(self, key) is None else as_toml(getattr(self, key)),
                f"the experiment's code has set {option} to {getattr(jax.config, option)}",
                "set the key instead, which applies to every process of a run",
            )
            for key, option in OPTIONS.items()
            if getattr(jax.config, option) != getattr(self, key)
        ]
        if problems:
            raise ConfigError(*problems)

    def apply(self) -> None:
        """Set JAX's options in this process, for all programs compiled from now on.

        XLA reads `environment` when it creates its first device, so the variables must be set before.
        """
        import jax

        for option, value in self.options().items():
            if getattr(jax.config, option) != value:
                jax.config.update(option, value)  # type: ignore[no-untyped-call]  # no types in jax
