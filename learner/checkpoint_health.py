"""Whether checkpoints reach the disk; and if they do not, when to try again, and when to give up."""

import dataclasses
import math
from typing import Final

_RETRY_S: Final = 10.0


@dataclasses.dataclass
class CheckpointHealth:
    """What became of the checkpoints lately. All times are the learner's monotonic clock.

    Attributes:
        give_up_s: how long the run goes on although none can be written.
    """

    give_up_s: float
    _failing_since_s: float = math.inf
    _retry_at_s: float = math.inf

    @property
    def is_failing(self) -> bool:
        """Whether the last one could not be written."""
        return self._failing_since_s < math.inf

    def succeeded(self) -> None:
        """Take note of one that is on the disk."""
        self._failing_since_s = self._retry_at_s = math.inf

    def failed(self, now_s: float) -> None:
        """Take note of one that could not be written."""
        self._failing_since_s = min(self._failing_since_s, now_s)
        self._retry_at_s = now_s + _RETRY_S

    def retry_due(self, now_s: float) -> bool:
        """Whether to try again: the disk may have room, and the next checkpoint be far away."""
        return now_s >= self._retry_at_s

    def retrying(self) -> None:
        """Take note that it is being tried again."""
        self._retry_at_s = math.inf

    def given_up(self, now_s: float) -> bool:
        """Whether it has lasted too long: what is computed now may never be kept."""
        return now_s - self._failing_since_s > self.give_up_s
