"""How many workers are wanted: a number, or a range within which the run chooses."""

from typing import Any, NamedTuple, Self


class WorkerRange(NamedTuple):
    """Bounds on the number of workers.

    Attributes:
        fewest: at least so many.
        most: at most so many.
    """

    fewest: int
    most: int

    def nearest(self, workers: int, lanes: int) -> int:
        """Return what is nearest to `workers` in the range and of use in a run of `lanes` lanes."""
        return max(self.fewest, min(workers, self.most, lanes))


class Scale(NamedTuple):
    """The wanted number of workers.

    Attributes:
        workers: how many; at the start, if there is a range.
        bounds: within which the run chooses, or None if it does not.
    """

    workers: int
    bounds: WorkerRange | None = None

    @classmethod
    def of(cls, remembered: Any) -> Self | None:
        """Return what was written as JSON, or None if it was something else."""
        match remembered:
            case [int(workers), None]:
                return cls(workers)
            case [int(workers), [int(fewest), int(most)]]:
                return cls(workers, WorkerRange(fewest, most))
        return None
