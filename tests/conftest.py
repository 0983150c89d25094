"""What all tests share."""

import os

# Before anything imports jax: XLA's bits on CPU depend on the number of cores that the process sees, and
# tests compare digests between processes.
os.environ.setdefault("PJRT_NPROC", "1")
os.environ.setdefault("JAX_PLATFORMS", "cpu")

from collections.abc import Iterator

import jax
import pytest


@pytest.fixture
def golden_prng() -> Iterator[None]:
    """The random bits with which most golden values were made."""
    before = jax.config.jax_threefry_partitionable
    jax.config.update("jax_threefry_partitionable", False)
    yield
    jax.config.update("jax_threefry_partitionable", before)


@pytest.fixture(autouse=True, scope="module")
def _programs_of_one_module() -> Iterator[None]:
    """Compiled programs go with the module that needed them.

    XLA maps several pieces of memory for each, and a process may have 65,530 on Linux: one that keeps those
    of the whole suite crashes in the compiler.
    """
    yield
    jax.clear_caches()
