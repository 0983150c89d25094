"""Reasons why workers do not run: no machine with room for them, or too little memory."""

import collections
import datetime
from collections.abc import Callable, Mapping
from typing import Final

PATIENCE_S: Final = 10.0
"""A pool takes a while to place a worker; only those that wait for longer are reported."""

_OUTS_PER_WORKER: Final = 2


class Placement:
    """The workers that a pool cannot place, and when each began to wait."""

    def __init__(self, wall_clock: Callable[[], float]) -> None:
        self._wall_clock = wall_clock
        self._since: dict[str, float] = {}
        self._wants: Mapping[str, str] = {}

    def note(self, unplaced: Mapping[str, str]) -> None:
        """Record the workers without a machine and the resource that each lacks."""
        now = self._wall_clock()
        self._since = {name: self._since.get(name, now) for name in unplaced}
        self._wants = dict(unplaced)

    @property
    def states(self) -> Mapping[str, tuple[str, float]]:
        """State and waiting time of each worker without a machine."""
        now = self._wall_clock()
        return {name: (f"no room: {lack}", now - self._since[name]) for name, lack in self._lacking.items()}

    @property
    def problems(self) -> list[str]:
        """One problem for all workers that lack the same resource."""
        problems = []
        lacking = self._lacking
        for lack in dict.fromkeys(lacking.values()):
            names = [name for name, own in lacking.items() if own == lack]
            since = datetime.datetime.fromtimestamp(min(self._since[name] for name in names), datetime.UTC)
            problems.append(
                f"no room for {', '.join(names)} since {since:%H:%M:%S} UTC: {lack}; the cluster's "
                "autoscaler, if it has one, has been asked; `unspool scale` sets another number"
            )
        return problems

    @property
    def _lacking(self) -> Mapping[str, str]:
        """Workers that have waited for at least `PATIENCE_S`, and what they lack."""
        now = self._wall_clock()
        return {name: lack for name, lack in self._wants.items() if now - self._since[name] >= PATIENCE_S}


class MemoryShortage:
    """Counts workers that ran out of memory, by machine: with fewer workers the others may fit."""

    def __init__(self) -> None:
        self._outs: collections.Counter[str] = collections.Counter()

    def note(self, host: str) -> None:
        """Count a worker that ran out of memory on `host`."""
        self._outs[host] += 1

    def forget(self) -> None:
        """Reset the counts, because the number of workers was set."""
        self._outs.clear()

    def affordable(self, workers: int) -> int:
        """Return how many of `workers` to run: one fewer for every two that ran out of memory on a host."""
        fewer = sum(outs // _OUTS_PER_WORKER for outs in self._outs.values())
        return max(min(workers, 1), workers - fewer)

    @property
    def problems(self) -> list[str]:
        """Problems to show to people."""
        return [
            f"{host or 'a machine'}: workers ran out of memory {outs} times, and {outs // _OUTS_PER_WORKER} "
            "fewer run until `unspool scale` sets another number; reduce num_tasks, or add memory"
            for host, outs in self._outs.items()
            if outs >= _OUTS_PER_WORKER
        ]
