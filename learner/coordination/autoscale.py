"""Autoscaling: a run wants as many workers as produce estimates that are applied."""

import dataclasses
from typing import Final, NamedTuple

from learner.scale import WorkerRange
from learner.state.run import Run
from learner.state.run_state import RunState
from learner.state.sessions import SessionStatus

_WINDOW_S: Final = 30.0  # a window has at least this length and this number of estimates
_ESTIMATES_PER_LANE: Final = 2
_WORTH_MORE: Final = 0.8  # scale up from this marginal yield, scale down below the next
_NOT_WORTH_IT: Final = 0.5
_CLEARLY_MORE: Final = 1.05  # a smaller growth in production is noise
_STEP: Final = 4  # change the number of workers by one in four
_REST_S: Final = 600.0  # do not retry a number of workers that was too large for this long


@dataclasses.dataclass(frozen=True)
class Window:
    """The estimates of a constant number of workers over a period.

    Attributes:
        workers: the number of workers throughout.
        applied: estimates that were applied to theta.
        late: estimates that were rejected or dropped as stale.
        span_s: the length of the period in seconds.
    """

    workers: int
    applied: int
    late: int
    span_s: float

    @property
    def produced_per_s(self) -> float:
        """Estimates per second, applied or stale."""
        return (self.applied + self.late) / self.span_s

    @property
    def applied_per_s(self) -> float:
        """Applied estimates per second."""
        return self.applied / self.span_s


def yield_of(now: Window, before: Window | None) -> float:
    """Return the share of the most recently added workers' estimates that is applied.

    If `before` had fewer workers and production has clearly grown since, this is the marginal yield: the
    increase in applied over the increase in produced estimates per second. Otherwise it is the average yield
    of all workers.
    """
    if before is not None and before.workers < now.workers:
        more_per_s = now.produced_per_s - before.produced_per_s
        if now.produced_per_s > _CLEARLY_MORE * before.produced_per_s:
            return (now.applied_per_s - before.applied_per_s) / more_per_s
    return now.applied / (now.applied + now.late)


def next_desired(bounds: WorkerRange, lanes: int, now: Window, before: Window | None) -> int:
    """Return the desired number of workers, given a window with `now.workers`.

    The number grows by a quarter if at least 80 % of the last workers' estimates are applied, and shrinks by
    a quarter if less than half of them are. It exceeds `lanes` only if the admin's minimum does.

    Args:
        bounds: the range that the admin allows.
        lanes: the run's number of lanes; a worker without a lane has nothing to do.
        now: the latest window.
        before: the last window before the number of workers last changed, or None.
    """
    share = yield_of(now, before)
    step = max(1, now.workers // _STEP)
    wanted = now.workers
    if share >= _WORTH_MORE:
        wanted += step
    elif share < _NOT_WORTH_IT:
        wanted -= step
    return bounds.nearest(wanted, lanes)


class _Limit(NamedTuple):
    workers: int
    until_s: float


class Autoscaler:
    """Adjusts the desired number of workers within the admin's range, if one is set.

    A window counts only if all desired workers were active throughout. Scaling down takes two consecutive
    windows that agree. A number of workers that was too large is not retried for ten minutes.
    """

    def __init__(self, run: Run) -> None:
        self._run = run
        self._began_s = run.clock()
        self._began_at = self._counts()
        self._before: Window | None = None
        self._limit: _Limit | None = None
        self._disappointed = False

    def tick(self) -> None:
        """Judge a window once it is complete. Called several times a second."""
        run = self._run
        bounds = run.scale.bounds
        if bounds is None:
            return
        lanes = run.settings.experiment.lanes
        self._want(bounds.nearest(run.scale.workers, lanes), "the range that is allowed")
        workers = self._present()
        if workers != run.scale.workers or run.state is not RunState.RUNNING:
            self._begin_window()
            return
        window = self._window(workers)
        if window.span_s >= _WINDOW_S and window.applied + window.late >= _ESTIMATES_PER_LANE * lanes:
            self._judge(bounds, lanes, window)
            self._begin_window()

    def _judge(self, bounds: WorkerRange, lanes: int, window: Window) -> None:
        wanted = next_desired(bounds, lanes, window, self._before)
        is_first_doubt = wanted < window.workers and not self._disappointed
        self._disappointed = wanted < window.workers
        if is_first_doubt:
            return
        now_s = self._run.clock()
        if wanted < window.workers:
            self._limit = _Limit(wanted, now_s + _REST_S)
        elif self._limit is not None and now_s < self._limit.until_s:
            wanted = bounds.nearest(min(wanted, max(self._limit.workers, window.workers)), lanes)
        if wanted != window.workers:
            share = yield_of(window, self._before)
            self._before = window
            self._disappointed = False
            self._want(wanted, f"{share:.0%} of what the last ones made counts")

    def _want(self, workers: int, why: str) -> None:
        before = self._run.scale.workers
        self._run.scale = self._run.scale._replace(workers=workers)
        if workers != before:
            self._run.report("info", "autoscaled", f"{before} to {workers} workers: {why}")

    def _present(self) -> int:
        now_s, heartbeat_s = self._run.clock(), self._run.settings.liveness.heartbeat_s
        return sum(
            max(1, session.heartbeat.workers)
            for session in self._run.sessions
            if session.state(now_s, heartbeat_s) is SessionStatus.ACTIVE and not session.is_empty_relay
        )

    def _begin_window(self) -> None:
        self._began_s, self._began_at = self._run.clock(), self._counts()

    def _window(self, workers: int) -> Window:
        applied, late = self._counts()
        span_s = self._run.clock() - self._began_s
        return Window(workers, applied - self._began_at[0], late - self._began_at[1], span_s)

    def _counts(self) -> tuple[int, int]:
        verdicts = self._run.telemetry.counters.verdicts
        return verdicts["APPLIED"], verdicts["STALE"]
