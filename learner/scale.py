"""The desired number of workers: fixed, or within a range for autoscaling."""

from typing import Any, NamedTuple, Self


class WorkerRange(NamedTuple):
    """Bounds on the number of workers.

    Attributes:
        fewest: the minimum, inclusive.
        most: the maximum, inclusive.
    """

    fewest: int
    most: int

    def nearest(self, workers: int, lanes: int) -> int:
        """Return `workers` clipped to the range and to `lanes`; the minimum takes precedence over `lanes`."""
        return max(self.fewest, min(workers, self.most, lanes))


class Scale(NamedTuple):
    """The desired number of workers.

    Attributes:
        workers: the current desired number; the initial one in a configuration with a range.
        bounds: the range for autoscaling, or None for a fixed number.
    """

    workers: int
    bounds: WorkerRange | None = None

    @classmethod
    def of(cls, remembered: Any) -> Self | None:
        """Return the scale of a decoded JSON value, or None if the value is not a scale."""
        match remembered:
            case [int(workers), None]:
                return cls(workers)
            case [int(workers), [int(fewest), int(most)]]:
                return cls(workers, WorkerRange(fewest, most))
        return None
