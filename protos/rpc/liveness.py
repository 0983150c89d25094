"""Rules for silent and stuck workers, used by learner and relay."""

import statistics
from collections.abc import Collection
from typing import Final

from protos.unspool.v1.learner_pb2 import Heartbeat

SUSPECT_HEARTBEATS: Final = 2
"""The number of heartbeat intervals of silence after which a worker gets no new work."""

COMPUTE_TIMES: Final = 32
"""The number of latest estimates whose compute times are kept."""

_COMPILING_BUDGET_S: Final = 15 * 60.0
_COMPUTING_BUDGET_S: Final = 60.0
_COMPUTING_MEDIANS: Final = 10.0


def phase_budget_s(heartbeat: Heartbeat, compute_times_s: Collection[float]) -> float | None:
    """Return the time limit for a heartbeat's phase in seconds, or None if it has no limit.

    Args:
        heartbeat: the worker's last heartbeat.
        compute_times_s: the compute times of the latest estimates. If empty, the limit for compiling applies.
    """
    if heartbeat.phase in (Heartbeat.COMPILING, Heartbeat.RESTORING):
        return _COMPILING_BUDGET_S
    if heartbeat.phase != Heartbeat.COMPUTING:
        return None
    if not compute_times_s:
        return _COMPILING_BUDGET_S
    return max(_COMPUTING_BUDGET_S, _COMPUTING_MEDIANS * statistics.median(compute_times_s))


def has_progressed(before: Heartbeat, now: Heartbeat, stuck_at: int) -> bool:
    """Return whether work stuck at progress `stuck_at` has resumed: an estimate or a phase is finished."""
    return bool(now.progress > stuck_at or now.phase_age_s < before.phase_age_s)
