"""The numerics of a process's environment, compared with those of the configuration."""

import os
import re
import subprocess
import sys
from typing import Any

import jax
import pytest

from protos.exit_codes import RefusedError
from unspool.config.config_error import ConfigError
from unspool.config.numerics import OPTIONS, Numerics
from workers.numeric_environment import (
    _HARMLESS,
    foreign_to_libraries,
    foreign_variables,
    pin,
    pin_worker,
    record,
)
from workers.unrolling.fitness import compute_as

HOSTILE = {
    "JAX_THREEFRY_PARTITIONABLE": "0",
    "JAX_DEFAULT_PRNG_IMPL": "rbg",
    "JAX_ENABLE_X64": "true",
    "JAX_DEFAULT_MATMUL_PRECISION": "highest",
    "JAX_NUMPY_DTYPE_PROMOTION": "strict",
    "JAX_NUMPY_RANK_PROMOTION": "raise",
    "JAX_DEBUG_NANS": "1",
    "JAX_DEBUG_INFS": "1",
    "JAX_DISABLE_JIT": "1",
    "JAX_RANDOM_SEED_OFFSET": "7",
    "JAX_SOFTMAX_CUSTOM_JVP": "1",
    "JAX_TRANSFER_GUARD": "disallow",
    "JAX_AN_OPTION_OF_A_LATER_JAX": "1",
    "XLA_FLAGS": "--xla_cpu_enable_fast_math=true",
    "LIBTPU_INIT_ARGS": "--xla_tpu_something=true",
    "NVIDIA_TF32_OVERRIDE": "0",
    "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
    "ONEDNN_DEFAULT_FPMATH_MODE": "BF16",
}
HARMLESS = {
    "JAX_PLATFORMS": "cpu",
    "JAX_COMPILATION_CACHE_DIR": "/tmp/cache",
    "JAX_LOG_COMPILES": "1",
    "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
    "CUBLAS_LOGINFO_DBG": "1",
    "ONEDNN_VERBOSE": "1",
    "PATH": "/bin",
}


def test_every_variable_that_decides_bits_is_found_and_no_other() -> None:
    found = foreign_variables(Numerics(), HOSTILE | HARMLESS)
    assert sorted(one.variable for one in found) == sorted(HOSTILE)


def test_every_option_of_the_installed_jax_is_a_key_or_harmless_or_found() -> None:
    """An unknown option counts as one that decides."""
    names = {name.upper() for name in jax.config.values if name.startswith("jax_")}
    found = {one.variable for one in foreign_variables(Numerics(), dict.fromkeys(names, "another"))}
    harmless = names - found
    assert {option.upper() for option in OPTIONS.values()} <= found
    assert all(
        name in _HARMLESS or name.startswith(("JAX_COMPILATION_CACHE_", "JAX_PERSISTENT_CACHE_"))
        for name in harmless
    )
    assert _HARMLESS - names == set()  # no misspelt or forgotten name


@pytest.mark.parametrize(
    ("variable", "words"),
    [
        ("JAX_ENABLE_X64", "JAX_ENABLE_X64=true is ignored by every process .* numerics.enable_x64 .* false"),
        ("JAX_DEFAULT_MATMUL_PRECISION", "numerics.matmul_precision decides, which is unset"),
        ("JAX_DISABLE_JIT", "JAX_DISABLE_JIT=1 is ignored .* the default of JAX is taken"),
        ("XLA_FLAGS", "fast_math.* numerics.environment.XLA_FLAGS decides, which is unset"),
    ],
)
def test_an_ignored_variable_is_reported_with_the_key_that_decides(variable: str, words: str) -> None:
    (found,) = foreign_variables(Numerics(), {variable: HOSTILE[variable]})
    assert re.search(words, str(found)), str(found)


@pytest.mark.parametrize("value", ["0", "false", "no", "OFF"])
def test_a_variable_that_says_what_the_configuration_says_is_no_matter(value: str) -> None:
    assert foreign_variables(Numerics(), {"JAX_ENABLE_X64": value}) == []


def test_pinning_leaves_what_is_harmless_and_what_the_configuration_wants() -> None:
    wanted = Numerics(enable_x64=True, environment={"XLA_FLAGS": "--xla_a=1", "NVIDIA_TF32_OVERRIDE": "1"})
    environ = {**HOSTILE, **HARMLESS, "XLA_FLAGS": "--xla_dump_to=/tmp/x --xla_b=2"}
    before = dict(jax.config.values)
    try:
        pin(wanted, environ)
        assert jax.config.jax_enable_x64
    finally:
        Numerics().apply()
    assert jax.config.values == before
    assert environ == {
        **HARMLESS,
        "JAX_ENABLE_X64": "1",
        "NVIDIA_TF32_OVERRIDE": "1",
        "XLA_FLAGS": "--xla_dump_to=/tmp/x --xla_a=1",
    }


def test_pinned_variables_are_foreign_to_nobody() -> None:
    environ = dict(HOSTILE)
    assert len(pin(Numerics(), environ)) == len(HOSTILE)
    assert pin(Numerics(), environ) == []


def test_a_worker_of_a_supervisor_computes_as_recorded_and_a_bare_one_keeps_what_libraries_read() -> None:
    runs = Numerics(environment={"LIBTPU_INIT_ARGS": "--a=1"})
    recorded = HOSTILE | record(runs)
    pin_worker(recorded)
    assert list(foreign_to_libraries(runs, recorded)) == []
    bare = dict(HOSTILE)
    pin_worker(bare)
    assert {one.variable for one in foreign_to_libraries(Numerics(), bare)} == set(bare)
    assert "XLA_FLAGS" in bare
    assert not any(name.startswith("JAX_") for name in bare)


@pytest.mark.parametrize(
    ("runs", "own", "words"),
    [
        ({}, {"XLA_FLAGS": "--xla_a=1"}, "XLA_FLAGS=--xla_a=1 but .* unset: start it without XLA_FLAGS"),
        ({}, {"XLA_FLAGS": "flags.txt"}, "XLA_FLAGS=flags.txt"),
        ({"XLA_FLAGS": "--xla_a=1"}, {}, "XLA_FLAGS=unset .*: start it with XLA_FLAGS=--xla_a=1"),
        (
            {"NVIDIA_TF32_OVERRIDE": "1"},
            {"NVIDIA_TF32_OVERRIDE": "0"},
            "start it with NVIDIA_TF32_OVERRIDE=1",
        ),
    ],
)
def test_a_worker_whose_libraries_compute_otherwise_is_refused_by_name_with_the_remedy(
    runs: dict[str, str], own: dict[str, str], words: str
) -> None:
    with pytest.raises(RefusedError, match=words):
        compute_as(Numerics(environment=runs), own)


def test_a_worker_takes_the_options_of_its_run_at_join() -> None:
    try:
        compute_as(Numerics(threefry_partitionable=False), {"XLA_FLAGS": "--xla_dump_to=/tmp/x"})
        assert not jax.config.jax_threefry_partitionable
        compute_as(Numerics(), {})
        assert jax.config.jax_threefry_partitionable
    finally:
        Numerics().apply()


def test_options_are_pinned_before_jax_reads_them() -> None:
    """A process that starts in a hostile environment computes like one that does not."""
    program = """
import os
import re
from unspool.config.numerics import Numerics
from workers.numeric_environment import pin
pin(Numerics())
import jax
print(jax.config.jax_disable_jit, jax.config.jax_random_seed_offset)
print(jax.random.normal(jax.random.key(0), (3,)))
"""
    words = [
        subprocess.run(
            [sys.executable, "-c", program], env=os.environ | more, capture_output=True, text=True, check=True
        ).stdout
        for more in ({}, {name: value for name, value in HOSTILE.items() if "LATER" not in name})
    ]
    assert words[0] == words[1]


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ({"prng_impl": "philox"}, "numerics.prng_impl"),
        ({"enable_x64": 1}, "numerics.enable_x64 = 1"),
        ({"environment": {"PATH": "/bin"}}, "numerics.environment.PATH"),
        ({"environment": {"JAX_ENABLE_X64": "1"}}, r"keys of \[numerics\]"),
        ({"environment": {"XLA_FLAGS": 3}}, "must be text"),
        (3, r"must be a table, \[numerics\]"),
    ],
)
def test_a_table_that_cannot_be_used_is_refused_by_key(table: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        Numerics.from_tables({"numerics": table})


def test_an_experiment_whose_code_changes_an_option_is_refused_by_key() -> None:
    Numerics().check_applied()
    try:
        jax.config.update("jax_enable_x64", True)
        with pytest.raises(
            ConfigError, match=r"numerics.enable_x64 = false: .* jax_enable_x64 to True .*set the key"
        ):
            Numerics().check_applied()
        Numerics(enable_x64=True).check_applied()
    finally:
        Numerics().apply()


def test_a_bare_worker_does_not_claim_to_know_what_its_run_says() -> None:
    (words,) = pin_worker({"JAX_ENABLE_X64": "1"})
    assert str(words).endswith("numerics.enable_x64 decides, which is set by the learner")


def test_a_worker_is_pinned_before_jax_is_imported_however_it_is_started() -> None:
    """`build` is where processes and Ray actors come together."""
    program = """
import os, sys
from workers.main import build
from workers.settings import WorkerSettings
assert "jax" not in sys.modules
build(WorkerSettings(learner="127.0.0.1:1", token="t", name="w"))
import jax
print(jax.config.jax_enable_x64, jax.config.jax_disable_jit, os.environ["XLA_FLAGS"])
"""
    runs = record(Numerics(enable_x64=True, environment={"XLA_FLAGS": "--xla_cpu_enable_fast_math=false"}))
    words = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "JAX_DISABLE_JIT": "1", "XLA_FLAGS": "--xla_no_such_flag=1", **runs},
        capture_output=True,
        text=True,
        check=True,
    )
    assert words.stdout.split() == ["True", "False", "--xla_cpu_enable_fast_math=false"]
