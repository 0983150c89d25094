"""Waiting before the next attempt, so that a restarted learner is not met by all of its workers at once."""

import random
from typing import Final

LONGEST_S: Final = 2.0
"""What a worker waits at most before it tries its learner again."""


class FullJitterBackoff:
    """Delays drawn evenly between zero and a ceiling that doubles with each attempt.

    Full jitter spreads a herd better than a jittered exponential ("Exponential Backoff And Jitter", AWS
    Architecture Blog, 2015).
    """

    def __init__(self, draws: random.Random, *, first_s: float = 0.1, cap_s: float = LONGEST_S) -> None:
        """Configure the ceiling: `first_s` at the first attempt, at most `cap_s`."""
        self._draws = draws
        self._first_s = first_s
        self._cap_s = cap_s
        self._ceiling_s = first_s

    def next_delay_s(self) -> float:
        """Return how long to wait before the next attempt."""
        delay_s = self._draws.uniform(0.0, self._ceiling_s)
        self._ceiling_s = min(self._cap_s, 2.0 * self._ceiling_s)
        return delay_s

    def reset(self) -> None:
        """Start over: the last attempt was a success."""
        self._ceiling_s = self._first_s
