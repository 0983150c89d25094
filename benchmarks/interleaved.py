"""Compares the times of two functions on a machine that is not idle.

Absolute times drift by tens of percent between runs; a ratio of minima or medians over alternating blocks
does not.
"""

import dataclasses
import statistics
import time
from collections.abc import Callable

import jax


@dataclasses.dataclass(frozen=True)
class Timing:
    """Seconds per call over all blocks."""

    seconds: tuple[float, ...]

    @property
    def median_ms(self) -> float:
        """Median over the calls."""
        return 1e3 * statistics.median(self.seconds)

    @property
    def minimum_ms(self) -> float:
        """Minimum over the calls."""
        return 1e3 * min(self.seconds)


def compare(
    one: Callable[[], object], other: Callable[[], object], *, blocks: int = 8, seconds_per_block: float = 1.0
) -> tuple[Timing, Timing]:
    """Calls `one` and `other` once to compile, then in alternating blocks, blocking on each result."""
    timings: tuple[list[float], list[float]] = ([], [])
    for call in (one, other):
        jax.block_until_ready(call())
    for _ in range(blocks):
        for call, seconds in zip((one, other), timings, strict=True):
            end = time.perf_counter() + seconds_per_block
            while time.perf_counter() < end:
                start = time.perf_counter()
                jax.block_until_ready(call())
                seconds.append(time.perf_counter() - start)
    return Timing(tuple(timings[0])), Timing(tuple(timings[1]))
