"""The settings of JAX, and of what JAX is built on, that the bits of theta depend on.

Declarations only: JAX is imported by `Numerics.apply` and nowhere else, so that a supervisor can read them.
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
"""Keys with which a program raises, or gives the bits that it gives without them."""

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
    """Whether XLA, or a library below it, reads from the variable `name` how it computes."""
    reports = any(part in name for part in _REPORTS)
    return name in _LIBRARY_VARIABLES or (name.startswith(_LIBRARY_PREFIXES) and not reports)


@dataclasses.dataclass(frozen=True)
class Numerics:
    """How every process of a run computes; the defaults are JAX's own.

    Attributes:
        threefry_partitionable: which of its two streams the threefry generator gives.
        prng_impl: the random number generator.
        enable_x64: whether there are 64-bit types.
        matmul_precision: of matrix products and convolutions; None: the device's own.
        dtype_promotion: "strict" refuses operations between types that differ.
        rank_promotion: "raise" refuses operations between arrays of different rank, "warn" tells of them.
        debug_nans: raise where a NaN comes up.
        debug_infs: raise where an infinity comes up.
        environment: variables that XLA and the libraries below it read, such as `XLA_FLAGS`; those that are
            not here are unset in the processes of a run.
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
        problems = [
            Problem(
                f"numerics.environment.{name}",
                as_toml(value),
                "must be text"
                if is_library_variable(name)
                else "is no variable that XLA or a library below it takes how it computes from",
                "" if is_library_variable(name) else "options of JAX itself are keys of [numerics]",
            )
            for name, value in self.environment.items()
            if not is_library_variable(name) or not isinstance(value, str)
        ]
        if problems:
            raise ConfigError(*problems)

    @classmethod
    def from_tables(cls, tables: Mapping[str, Any]) -> Self:
        """Return what the table `numerics` of a configuration says; the defaults where there is none.

        Raises:
            ConfigError: with everything that is wrong with that table.
        """
        table = tables.get("numerics", {})
        if not isinstance(table, Mapping):
            raise ConfigError(Problem("numerics", as_toml(table), "must be a table, [numerics]"))
        values = checked(table, parameters(cls), "numerics", "[numerics]")
        made: Self = called(cls, values, table, "numerics")
        return made

    def deciding(self) -> dict[str, Any]:
        """Return what differs from the defaults: nothing for runs from before there was this table."""
        default = Numerics()
        fields = dataclasses.asdict(self)
        return {name: value for name, value in fields.items() if value != getattr(default, name)}

    def options(self) -> dict[str, Any]:
        """Return the values of JAX's options, by name."""
        return {option: getattr(self, key) for key, option in OPTIONS.items()}

    def check_applied(self) -> None:
        """Make sure that nobody has changed JAX's options since `apply`, as a component's module might.

        Raises:
            ConfigError: naming the key of every option that has another value.
        """
        import jax

        problems = [
            Problem(
                f"numerics.{key}",
                None if getattr(self, key) is None else as_toml(getattr(self, key)),
                f"the experiment's own code has set {option} to {getattr(jax.config, option)}",
                "set the key instead: it decides in every process of a run",
            )
            for key, option in OPTIONS.items()
            if getattr(jax.config, option) != getattr(self, key)
        ]
        if problems:
            raise ConfigError(*problems)

    def apply(self) -> None:
        """Make JAX compute like this in this process, from the next program on.

        `environment` is read by XLA when it makes its first device; it must be set before.
        """
        import jax

        for option, value in self.options().items():
            if getattr(jax.config, option) != value:
                jax.config.update(option, value)  # type: ignore[no-untyped-call]  # jax has no types here
