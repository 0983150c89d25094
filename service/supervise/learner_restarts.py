"""The learner over its lives: started again when it dies of what another start may mend."""

import signal
from collections.abc import Callable
from typing import Final

from protos.exit_codes import ExitCode
from service.supervise.learner_process import LearnerProcess
from service.supervise.restart_budget import RestartPolicy

_UNCAUGHT: Final = 1
_MENDABLE: Final = (_UNCAUGHT, ExitCode.FAILED, ExitCode.PORT_IN_USE, ExitCode.SYSTEM)


_POLICY: Final = RestartPolicy(window_s=3600.0)
"""The window is long enough for as many processes that each hang until they are killed."""


class LearnerRestarts:
    """One life after another. Not thread-safe; waits for nothing.

    Args:
        learner: the first.
        start: begins another, on the same run directory.
        clock: monotonic seconds.
        policy: how many there may be.
    """

    def __init__(
        self,
        learner: LearnerProcess,
        start: Callable[[], LearnerProcess],
        clock: Callable[[], float],
        policy: RestartPolicy = _POLICY,
    ) -> None:
        self._learner = learner
        self._start = start
        self._clock = clock
        self._policy = policy
        self._deaths: list[float] = []
        self._cause = ""
        self._verdict = ""
        self._highest_step = 0
        self._next_at: float | None = None
        self._is_last = False

    @property
    def is_down(self) -> bool:
        """Whether the next life is still to begin."""
        return self._next_at is not None

    @property
    def is_worn_out(self) -> bool:
        """Whether it has died too often to be started again."""
        return len(self._deaths) >= self._policy.crashes

    @property
    def pid(self) -> int:
        """Of the present life's process."""
        return self._learner.pid

    @property
    def problem(self) -> str:
        """What a person should know; empty if it has not died since the last outer step."""
        if not self._deaths:
            return ""
        count = f"{len(self._deaths)} of at most {self._policy.crashes} times without an outer step between"
        return f"the learner {self._cause} ({count})" + "; it is started again" * (not self._is_last)

    def poll(self) -> int | None:
        """Return the exit code once no further life follows; None while it lives, or will again."""
        if self._next_at is not None and not self._is_last:
            if self._clock() >= self._next_at:
                self._learner, self._next_at = self._start(), None
            return None
        exit_code = self._learner.poll()
        if exit_code is None or self._is_last or not _is_mendable(exit_code):
            return exit_code
        self._note_death(exit_code)
        return exit_code if self._is_last else None

    def moved(self, outer_step: int) -> None:
        """Take note of how far theta is. Steps that a death undid count once."""
        if outer_step > self._highest_step:
            self._highest_step = outer_step
            self._deaths.clear()

    def no_more(self) -> None:
        """Let the present life be the last; if it is over, nothing follows."""
        self._is_last = True

    def last_words(self) -> str:
        """Return the last line that the learner printed."""
        return self._learner.last_words()

    def terminate(self) -> None:
        """Ask the present process by a signal to stop, where it does not answer otherwise."""
        self._learner.terminate()

    def kill(self, verdict: str = "") -> None:
        """End the present life at once; `verdict` says why, for people."""
        self._verdict = verdict
        self._learner.kill()

    def end(self) -> None:
        """End it for good: ask it to, and see to it that it does."""
        self.no_more()
        self._learner.end()

    def _note_death(self, exit_code: int) -> None:
        now, policy = self._clock(), self._policy
        self._cause, self._verdict = self._verdict or cause_of(exit_code), ""
        self._deaths = [*(at for at in self._deaths if now - at < policy.window_s), now]
        if self.is_worn_out:
            self._is_last = True
            return
        self._next_at = now + policy.delay_s(len(self._deaths))


def cause_of(exit_code: int) -> str:
    """Say how a process ended."""
    if exit_code < 0:
        return f"was killed by {signal.Signals(-exit_code).name}"
    return f"ended with exit code {exit_code}"


def _is_mendable(exit_code: int) -> bool:
    return exit_code < 0 or exit_code in _MENDABLE
