"""When a worker counts as silent or stuck by its heartbeats, at the learner and at a relay alike."""

import statistics
from collections.abc import Collection
from typing import Final

from protos.unspool.v1.learner_pb2 import Heartbeat

SUSPECT_HEARTBEATS: Final = 2
"""Intervals of silence after which nothing new is given to a worker."""

COMPUTE_TIMES: Final = 32
"""How many estimates the latest ones are."""

_COMPILING_BUDGET_S: Final = 15 * 60.0
_COMPUTING_BUDGET_S: Final = 60.0
_COMPUTING_MEDIANS: Final = 10.0


def phase_budget_s(heartbeat: Heartbeat, compute_times_s: Collection[float]) -> float | None:
    """Return how long a heartbeat's phase may take; None: as long as it likes.

    Args:
        heartbeat: the last of a worker.
        compute_times_s: of the latest estimates. While there are none, one may take as long as compiling.
    """
    if heartbeat.phase in (Heartbeat.COMPILING, Heartbeat.RESTORING):
        return _COMPILING_BUDGET_S
    if heartbeat.phase != Heartbeat.COMPUTING:
        return None
    if not compute_times_s:
        return _COMPILING_BUDGET_S
    return max(_COMPUTING_BUDGET_S, _COMPUTING_MEDIANS * statistics.median(compute_times_s))


def gets_on(before: Heartbeat, now: Heartbeat, stuck_at: int) -> bool:
    """Whether work that was stuck at progress `stuck_at` moves again: an estimate is done, or a phase."""
    return bool(now.progress > stuck_at or now.phase_age_s < before.phase_age_s)
