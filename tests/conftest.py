"""What all tests share."""

import os
from pathlib import Path

# Before anything imports jax: XLA's bits on CPU depend on the number of cores that the process sees, and
# tests compare digests between processes.
os.environ.setdefault("PJRT_NPROC", "1")
os.environ.setdefault("JAX_PLATFORMS", "cpu")

from collections.abc import Iterator

import jax
import pytest

_LIBRARY = Path(__file__).parent / "unspool"


@pytest.fixture
def golden_prng() -> Iterator[None]:
    """The random bits with which most golden values were made."""
    before = jax.config.jax_threefry_partitionable
    jax.config.update("jax_threefry_partitionable", False)
    yield
    jax.config.update("jax_threefry_partitionable", before)


@pytest.fixture(autouse=True, scope="module")
def _programs_of_one_module(request: pytest.FixtureRequest) -> Iterator[None]:
    """Drop the programs that a module has compiled, and compile those of most library tests in a hurry.

    XLA maps several pieces of memory for each program, and a process may have 65,530 on Linux: one that keeps
    those of the whole suite crashes in the compiler. Most of the library's tests compile many programs and
    run each a few times, so less optimised ones save half of their time. Modules marked `optimized` compile
    as a user does.
    """
    in_a_hurry = _LIBRARY in request.path.parents and request.node.get_closest_marker("optimized") is None
    jax.config.update("jax_disable_most_optimizations", in_a_hurry)
    yield
    jax.config.update("jax_disable_most_optimizations", False)
    jax.clear_caches()
