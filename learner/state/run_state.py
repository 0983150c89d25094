"""The state of a run, and when and how it ends."""

import enum
from typing import Final

from learner.storage.update_record import Effect


class RunState(enum.StrEnum):
    """The state of a run, as status shows it."""

    WAITING_FOR_WORKERS = "WAITING_FOR_WORKERS"
    RUNNING = "RUNNING"
    DEGRADED = "DEGRADED"
    """Running, but no checkpoint can be written."""
    PAUSED = "PAUSED"
    STOPPING = "STOPPING"
    STOPPED = "STOPPED"
    FINISHED = "FINISHED"
    FAILED = "FAILED"
    UNTRAINED = "UNTRAINED"
    """The last outer step is reached, but no update has ever moved theta."""


class RunControl:
    """Pause and stop requests, the progress of theta, and the outcome of the run.

    Attributes:
        moved_at: the outer step of the last update that moved theta; 0 if none has.
        paused: whether updates are paused.
        final: how the run ended; None while it continues.
    """

    def __init__(self, outer_steps: int) -> None:
        self._outer_steps = outer_steps
        self._stop_at: int | None = None
        self._reverted_in_a_row = 0
        self._last_effect = Effect.MOVED
        self.moved_at = 0
        self.paused = False
        self.final: RunState | None = None

    def state(self, workers: int) -> RunState:
        """Return the run's state if `workers` streams are open."""
        if self.final is not None:
            return self.final
        if self._stop_at is not None:
            return RunState.STOPPING
        if self.paused:
            return RunState.PAUSED
        return RunState.RUNNING if workers else RunState.WAITING_FOR_WORKERS

    def stop(self, outer_step: int, *, now: bool) -> None:
        """Request the end of the run: after the current outer step, or at once if `now`."""
        at = outer_step if now else outer_step + 1
        self._stop_at = at if self._stop_at is None else min(at, self._stop_at)

    def updated(self, outer_step: int, effect: Effect) -> None:
        """Record the effect of the update that led to `outer_step`.

        The run fails after `_REVERTS_TO_FAIL` reverted updates without one that moved theta in between.
        """
        self._last_effect = effect
        if effect is Effect.MOVED:
            self.moved_at, self._reverted_in_a_row = outer_step, 0
        elif effect is Effect.REVERTED:
            self._reverted_in_a_row += 1

    def standstill(self, outer_step: int) -> str:
        """Return since when and why theta has not moved, and the remedy; empty for up to two such updates."""
        count = outer_step - self.moved_at
        if count < _STEPS_TO_WORRY:
            return ""
        since = f"since outer step {self.moved_at}" if self.moved_at else "at all"
        return f"has not moved {since} ({count} updates): {_STANDSTILLS.get(self._last_effect, '')}"

    def end(self, outer_step: int, *, computing: bool) -> RunState | None:
        """Return how the run ends at this outer step, or None if it continues.

        Args:
            outer_step: the current outer step.
            computing: whether any worker can work on the current outer step.
        """
        if self._reverted_in_a_row >= _REVERTS_TO_FAIL:
            return RunState.FAILED
        if outer_step >= self._outer_steps:
            return RunState.FINISHED if self.moved_at else RunState.UNTRAINED
        if self._stop_at is None:
            return None
        return RunState.STOPPED if outer_step >= self._stop_at or self.paused or not computing else None


_REVERTS_TO_FAIL: Final = 3
_STEPS_TO_WORRY: Final = 3
_STANDSTILLS: Final = {
    Effect.EMPTY: "no gradient had weight: none was finite, or every task diverged; `unspool lanes` shows "
    "the losses, which the task must keep finite where theta is",
    Effect.REVERTED: "theta or the outer optimizer's state would not have stayed finite; lower the outer "
    "learning rate, or set outer_optimizer.clip",
}
