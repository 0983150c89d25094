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
