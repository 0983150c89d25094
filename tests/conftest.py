"""Fixtures and settings of all tests."""

import os
from pathlib import Path

# Set before jax is imported: XLA's bits on CPU depend on the number of cores that the process sees, and tests
# compare digests between processes.
os.environ.setdefault("PJRT_NPROC", "1")
os.environ.setdefault("JAX_PLATFORMS", "cpu")

from collections.abc import Iterator
from typing import Any

import jax
import pytest
from jax._src import compiler

_LIBRARY = Path(__file__).parent / "unspool"


@pytest.fixture
def golden_prng() -> Iterator[None]:
    """Use the random bits with which most golden values were made."""
    before = jax.config.jax_threefry_partitionable
    jax.config.update("jax_threefry_partitionable", False)
    yield
    jax.config.update("jax_threefry_partitionable", before)


@pytest.fixture(autouse=True, scope="module")
def _programs_of_one_module(request: pytest.FixtureRequest) -> Iterator[None]:
    """Drop the compiled programs of each module, and compile most library tests with less optimisation.

    XLA makes several memory mappings per program, and Linux allows 65,530 per process: a process that kept
    the programs of the whole suite would crash in the compiler. Most of the library's tests compile many
    programs and run each a few times, so less optimisation and simpler code for fused operations take a third
    of the time. Modules marked `optimized` use the default settings.
    """
    in_a_hurry = _LIBRARY in request.path.parents and request.node.get_closest_marker("optimized") is None
    with pytest.MonkeyPatch.context() as patch:
        if in_a_hurry:
            patch.setattr(compiler, "get_compile_options", _without_fusion_emitters)
        jax.config.update("jax_disable_most_optimizations", in_a_hurry)
        yield
    jax.config.update("jax_disable_most_optimizations", False)
    jax.clear_caches()


_compile_options = compiler.get_compile_options


def _without_fusion_emitters(*args: Any, **kwargs: Any) -> Any:
    """Return the compile options of JAX, with a flag of XLA that JAX has no setting for.

    The flag halves the time to compile. The environment variable `XLA_FLAGS` would set it for all tests, and
    for the processes that they start.
    """
    overrides = kwargs.pop("env_options_overrides", None) or {}
    overrides = {"xla_cpu_use_fusion_emitters": False, **overrides}
    return _compile_options(*args, env_options_overrides=overrides, **kwargs)
