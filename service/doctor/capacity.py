"""The capacity of one learner, from the measured cost of a message.

A learner spends `c(|theta|)` seconds of CPU time on each gradient that arrives. With W workers that each take
T seconds per gradient, its load is `W / T * c(|theta|)` cores. It should not exceed half a core: the rest is
for the outer update, checkpoints and status.
"""

import bisect
import dataclasses
from typing import Final

KIB: Final = 2**10
MIB: Final = 2**20


MEASURED: Final = {10 * KIB: 0.25e-3, 1 * MIB: 1.3e-3, 8 * MIB: 13e-3, 32 * MIB: 42e-3}
"""CPU seconds of the learner for one push (receiving, checking, accumulating), by bytes of its gradient.

Measured with bidirectional streams on two contended cores; faster machines carry more.
"""

LOAD: Final = 0.5
"""Cores that a learner should have to spend on messages."""

RELAY_THETA_BYTES: Final = 8 * MIB
RELAY_WORKERS_PER_NODE: Final = 2
"""Sizes from which one stream per node costs less than one per worker, so that a relay pays off."""

STREAMS: Final = 256
"""Workers that one learner kept connected in a measurement, at 12 % of a core for heartbeats alone."""

_LEARNER_BYTES: Final = 400 * MIB  # Python, JAX, gRPC
_RECENT_VERSIONS: Final = 5
_OPTIMIZER_THETAS: Final = 4  # theta, two moments, and the update in progress


def message_s(theta_bytes: float) -> float:
    """Return the learner's CPU seconds for one push, interpolated linearly between the measured points."""
    sizes = list(MEASURED)
    if theta_bytes <= sizes[0]:
        return MEASURED[sizes[0]]
    above = min(bisect.bisect_left(sizes, theta_bytes), len(sizes) - 1)
    low, high = sizes[above - 1], sizes[above]
    slope = (MEASURED[high] - MEASURED[low]) / (high - low)
    return MEASURED[low] + slope * (theta_bytes - low)


def gradients_per_s(theta_bytes: float, load: float = LOAD) -> float:
    """Return W/T: how many gradients per second one learner handles with `load` cores."""
    return load / message_s(theta_bytes)


def workers_carried(theta_bytes: float, gradient_s: float) -> int:
    """Return how many directly connected workers one learner supports at `gradient_s` per gradient."""
    return max(1, min(STREAMS, int(gradients_per_s(theta_bytes) * gradient_s)))


def wants_relay(theta_bytes: float, workers_per_node: int) -> bool:
    """Whether the workers of a node should share one connection, however many there are in total."""
    return theta_bytes >= RELAY_THETA_BYTES and workers_per_node >= RELAY_WORKERS_PER_NODE


@dataclasses.dataclass(frozen=True)
class LearnerMemory:
    """Upper bound of a learner's memory, in bytes.

    Attributes:
        ring: published thetas, back to the oldest lane snapshot if lanes are replayed exactly.
        buffer: gradients that have arrived and are not applied.
        optimizer: theta, its update, and the state of the outer optimizer.
        process: everything else.
    """

    ring: int
    buffer: int
    optimizer: int
    process: int = _LEARNER_BYTES

    @property
    def total(self) -> int:
        """The sum of all parts."""
        return self.ring + self.buffer + self.optimizer + self.process


def learner_memory(theta_bytes: int, buffered: int, snapshot_every: int, *, is_exact: bool) -> LearnerMemory:
    """Return an upper bound of a learner's memory.

    Args:
        theta_bytes: of one theta.
        buffered: maximum number of buffered gradients.
        snapshot_every: estimates of a lane between its snapshots, `checkpoint.every`.
        is_exact: whether lanes are replayed with their original thetas, as in `sync`.
    """
    versions = _RECENT_VERSIONS + (2 * snapshot_every if is_exact else 0)
    return LearnerMemory(
        ring=versions * theta_bytes,
        buffer=buffered * theta_bytes,
        optimizer=_OPTIMIZER_THETAS * theta_bytes,
    )
