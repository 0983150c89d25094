"""Keeps a run going: keeps its workers to their number, passes stops on, and ends when the learner does."""

import signal
from collections.abc import Callable
from typing import Final, Protocol

from protos.unspool.v1.admin_pb2 import Status
from service.client import Admin
from service.exits import (
    FailedError,
    InterruptedRunError,
    LearnerUnreachableError,
    RefusedError,
    ServiceError,
    error_for,
)
from service.fleet import Fleet

_ENDING: Final = ("STOPPING", "STOPPED", "FINISHED", "FAILED")
_SILENCE_S = 120.0
_FAREWELL_S = 20.0
_STOP_S = 60.0


class LearnerProcess(Protocol):
    """The process that holds theta, as its parent sees it."""

    def poll(self) -> int | None:
        """Return its exit code, negative for a signal; None while it lives."""
        ...

    def last_words(self) -> str:
        """Return the last line that it printed."""
        ...

    def kill(self) -> None:
        """End it at once."""
        ...


class Supervisor:
    """One run's supervision, a step at a time. Not thread-safe; waits for nothing.

    Args:
        learner: its process.
        admin: its operator's port.
        fleet: its workers.
        clock: monotonic seconds.
    """

    def __init__(
        self, learner: LearnerProcess, admin: Admin, fleet: Fleet, clock: Callable[[], float]
    ) -> None:
        self._learner = learner
        self._admin = admin
        self._fleet = fleet
        self._clock = clock
        self._status: Status | None = None
        self._answered_at = clock()
        self._stops_wanted = 0
        self._stops_sent = 0
        self._stopped_at = 0.0
        self._ended_at: float | None = None
        self._failure: ServiceError | None = None
        self._refusal = ""

    @property
    def status(self) -> Status | None:
        """The last that the learner said of itself."""
        return self._status

    @property
    def problems(self) -> list[str]:
        """What a person should know."""
        return self._fleet.problems + [self._refusal] * bool(self._refusal)

    def ask_to_stop(self, times: int) -> None:
        """End the run with a checkpoint; asked twice, without waiting for the running outer step."""
        self._stops_wanted = max(self._stops_wanted, times)

    def kill(self) -> None:
        """End everything at once."""
        self._learner.kill()
        self._fleet.kill()

    def step(self) -> bool:
        """Do what is due; return whether the run has ended and nothing of it is left.

        Raises:
            ServiceError: nothing of it is left, and it did not end as it should.
        """
        exit_code = self._learner.poll()
        if exit_code is not None:
            return self._wind_up(exit_code)
        self._pass_stops_on()
        try:
            self._status = self._admin.status()
        except LearnerUnreachableError:
            self._judge_silence()
        except RefusedError as error:
            # It lives, and training goes on: certificates that have expired are no reason to end a run.
            self._answered_at, self._refusal = self._clock(), str(error)
            self._fleet.reap()
        else:
            self._refusal = ""
            self._answered_at = self._clock()
            self._look_after_workers(self._status)
        return False

    def _look_after_workers(self, status: Status) -> None:
        if status.state in _ENDING:
            self._fleet.reap()
            return
        self._fleet.reconcile(status)
        if self._fleet.has_given_up and not status.workers and self._failure is None:
            self._failure = FailedError("no worker is left:\n" + "\n".join(self.problems))
            self.ask_to_stop(2)

    def _judge_silence(self) -> None:
        if self._clock() - self._answered_at > _SILENCE_S:
            self._failure = InterruptedRunError(
                f"the learner has not answered for {_SILENCE_S:.0f} s and was killed; launch again to resume"
            )
            self._learner.kill()

    def _pass_stops_on(self) -> None:
        if self._stops_sent and self._clock() - self._stopped_at > _STOP_S:
            self._stops_wanted = self._stops_sent + 1
        if self._stops_wanted <= self._stops_sent:
            return
        if self._stops_wanted > 2:
            self._failure = self._failure or InterruptedRunError("the learner did not stop and was killed")
            self._learner.kill()
            return
        try:
            self._admin.stop(now=self._stops_wanted == 2)
        except ServiceError:
            return  # tried again at the next step
        self._stops_sent, self._stopped_at = self._stops_wanted, self._clock()

    def _wind_up(self, exit_code: int) -> bool:
        """The learner has ended: workers leave by themselves if it said goodbye to them."""
        now = self._clock()
        self._ended_at = now if self._ended_at is None else self._ended_at
        ended_for_s = now - self._ended_at
        self._fleet.reap()
        if exit_code != 0 or ended_for_s > _FAREWELL_S:
            self._fleet.kill()
            self._fleet.reap()
        if self._fleet.running and ended_for_s < 2 * _FAREWELL_S:
            return False
        if self._failure is None and exit_code != 0:
            self._failure = failure_of(exit_code, self._learner.last_words())
        if self._failure is not None:
            raise self._failure
        return True


def failure_of(exit_code: int, last_words: str) -> ServiceError:
    """Return the error that the learner has ended with: its own, or that somebody killed it."""
    if exit_code < 0:
        name = signal.Signals(-exit_code).name
        return InterruptedRunError(f"the learner was killed by {name}; launch again to resume. {last_words}")
    return error_for(exit_code, last_words)
