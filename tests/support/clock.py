"""A clock that tests control."""


class Clock:
    """A monotonic clock in seconds that changes only when a test advances it.

    Args:
        start_s: the first time.
        step_s: how far each reading advances it, for code that polls until a deadline.
    """

    def __init__(self, start_s: float = 1000.0, *, step_s: float = 0.0) -> None:
        self.now_s = start_s
        self._step_s = step_s

    def __call__(self) -> float:
        now_s = self.now_s
        self.now_s += self._step_s
        return now_s

    def advance(self, seconds: float) -> None:
        """Advance the clock."""
        self.now_s += seconds
