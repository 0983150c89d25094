"""Machines on which workers ran out of memory: with one worker fewer the others may fit."""

import collections

_OUTS_PER_WORKER = 2


class MemoryShortage:
    """How often workers ran out of memory, by machine."""

    def __init__(self) -> None:
        self._outs: collections.Counter[str] = collections.Counter()

    def note(self, host: str) -> None:
        """A worker there was ended for want of memory."""
        self._outs[host] += 1

    def forget(self) -> None:
        """Somebody has decided anew how many workers there are to be."""
        self._outs.clear()

    def affordable(self, workers: int) -> int:
        """Return how many of `workers` to run: one fewer for every two that ran out of memory on a host."""
        fewer = sum(outs // _OUTS_PER_WORKER for outs in self._outs.values())
        return max(min(workers, 1), workers - fewer)

    @property
    def problems(self) -> list[str]:
        """What a person should know."""
        return [
            f"{host or 'a machine'}: workers ran out of memory {outs} times, and {outs // _OUTS_PER_WORKER} "
            "fewer run until `unspool scale` says otherwise; less num_tasks, or more memory, lets them fit"
            for host, outs in self._outs.items()
            if outs >= _OUTS_PER_WORKER
        ]
