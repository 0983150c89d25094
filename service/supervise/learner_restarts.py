"""Restarts the learner after failures that a restart can fix."""

import signal
from collections.abc import Callable
from typing import Final

from protos.exit_codes import ExitCode
from service.supervise.learner_process import LearnerProcess
from service.supervise.restart_budget import RestartPolicy, recent

_UNCAUGHT: Final = 1
_RESTARTABLE: Final = (_UNCAUGHT, ExitCode.FAILED, ExitCode.PORT_IN_USE, ExitCode.SYSTEM)

_POLICY: Final = RestartPolicy(window_s=3600.0)
"""The window is long enough for several processes that each hang until they are killed."""


class LearnerRestarts:
    """The learner's process and its restarts. Not thread-safe; never waits.

    Attributes:
        process: the newest process.
    """

    def __init__(
        self,
        learner: LearnerProcess,
        start: Callable[[], LearnerProcess],
        clock: Callable[[], float],
        policy: RestartPolicy = _POLICY,
    ) -> None:
        """Continue with a running process.

        Args:
            learner: the first process.
            start: starts another on the same run directory.
            clock: monotonic seconds.
            policy: how often to restart.
        """
        self.process = learner
        self._start = start
        self._clock = clock
        self._policy = policy
        self._recent_ends: list[float] = []
        self._cause = ""
        self._reason = ""
        self._highest_step = 0
        self._next_at: float | None = None
        self._is_final = False

    @property
    def is_down(self) -> bool:
        """Whether the next process has not been started yet."""
        return self._next_at is not None

    @property
    def has_given_up_restarting(self) -> bool:
        """Whether the learner has ended too often to be restarted."""
        return len(self._recent_ends) >= self._policy.crashes

    @property
    def problem(self) -> str:
        """A problem to show to people; empty if the learner has not ended since the last outer step."""
        if not self._recent_ends:
            return ""
        count = (
            f"{len(self._recent_ends)} of at most {self._policy.crashes} times without an outer step between"
        )
        return f"the learner {self._cause} ({count})" + "; it is restarted" * (not self._is_final)

    def poll(self) -> int | None:
        """Start the next process if it is due; return the exit code once none will follow, else None."""
        if self._next_at is not None and not self._is_final:
            if self._clock() >= self._next_at:
                self.process, self._next_at = self._start(), None
            return None
        exit_code = self.process.poll()
        if exit_code is None or self._is_final or not _is_restartable(exit_code):
            return exit_code
        self._count_end(exit_code)
        return exit_code if self._is_final else None

    def moved(self, outer_step: int) -> None:
        """Record the outer step. Steps that are repeated after a restart count only once."""
        if outer_step > self._highest_step:
            self._highest_step = outer_step
            self._recent_ends.clear()

    def stop_restarting(self) -> None:
        """Disable restarts, including one that is due."""
        self._is_final = True

    def kill(self, reason: str = "") -> None:
        """Kill the current process; `reason` is for people."""
        self._reason = reason
        self.process.kill()

    def end(self) -> None:
        """Terminate the learner, kill it if it does not end, and do not restart it."""
        self.stop_restarting()
        self.process.end()

    def _count_end(self, exit_code: int) -> None:
        now, policy = self._clock(), self._policy
        self._cause, self._reason = self._reason or cause_of(exit_code), ""
        self._recent_ends = recent(self._recent_ends, now, policy.window_s)
        if self.has_given_up_restarting:
            self._is_final = True
            return
        self._next_at = now + policy.delay_s(len(self._recent_ends))


def cause_of(exit_code: int) -> str:
    """Return how a process ended, for people."""
    if exit_code < 0:
        return f"was killed by {signal.Signals(-exit_code).name}"
    return f"ended with exit code {exit_code}"


def _is_restartable(exit_code: int) -> bool:
    return exit_code < 0 or exit_code in _RESTARTABLE
