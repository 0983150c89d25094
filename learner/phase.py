"""The run's own state: whether it goes on, stands still, or ends, and how."""

import enum


class RunState(enum.StrEnum):
    """What a run is doing, as status shows it."""

    WAITING_FOR_WORKERS = "WAITING_FOR_WORKERS"
    RUNNING = "RUNNING"
    DEGRADED = "DEGRADED"
    """Running, but no checkpoint can be written."""
    PAUSED = "PAUSED"
    STOPPING = "STOPPING"
    STOPPED = "STOPPED"
    FINISHED = "FINISHED"
    FAILED = "FAILED"


class RunPhase:
    """What the operator asked for, and how the run ended."""

    def __init__(self, outer_steps: int) -> None:
        self._outer_steps = outer_steps
        self._stop_at: int | None = None
        self._reverted_in_a_row = 0
        self.paused = False
        self.final: RunState | None = None

    @property
    def stopping(self) -> bool:
        """Whether a stop was asked for."""
        return self._stop_at is not None

    def state(self, workers: int) -> RunState:
        """Return the state to show, with `workers` streams open."""
        if self.final is not None:
            return self.final
        if self.stopping:
            return RunState.STOPPING
        if self.paused:
            return RunState.PAUSED
        return RunState.RUNNING if workers else RunState.WAITING_FOR_WORKERS

    def stop(self, version: int, *, now: bool) -> None:
        """Ask for the end: after the running outer step, or `now`."""
        at = version if now else version + 1
        self._stop_at = at if self._stop_at is None else min(at, self._stop_at)

    def updated(self, *, reverted: bool) -> None:
        """Count an update; three in a row that had to be reverted fail the run."""
        self._reverted_in_a_row = self._reverted_in_a_row + 1 if reverted else 0

    def end(self, version: int, *, computing: bool) -> RunState | None:
        """Return how the run ends at this version, or None if it goes on.

        Args:
            version: of theta.
            computing: whether anybody works on the running outer step.
        """
        if self._reverted_in_a_row >= _REVERTS_TO_FAIL:
            return RunState.FAILED
        if version >= self._outer_steps:
            return RunState.FINISHED
        if self._stop_at is None:
            return None
        return RunState.STOPPED if version >= self._stop_at or self.paused or not computing else None


_REVERTS_TO_FAIL = 3
