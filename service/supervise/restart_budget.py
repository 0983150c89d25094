"""Restart budget of a worker: backoff, and a maximum number of restarts.

Crashes, preemptions and requested ends are counted separately: a machine that is preempted ten times a day
must not use up the restarts that are meant for broken code.
"""

import dataclasses
import enum
import math

from protos.exit_codes import ExitCode
from unspool.failure_report import last_line
from workers.pools.pool import Exit

_CAUSE_CHARACTERS = 300


class EndKind(enum.StrEnum):
    """Why a worker's process ended."""

    ASKED = "asked"
    """The supervisor scaled it down."""
    EVICTED = "evicted"
    """The learner or an admin gave its lanes to others; another process may do better."""
    DRAINED = "drained"
    """An admin drained it, or the run is over; another process follows if it is wanted."""
    PREEMPTED = "preempted"
    """Its machine was taken away, or it was sent SIGTERM."""
    CRASHED = "crashed"
    REFUSED = "refused"
    """The learner refuses it, and would refuse another one started the same way."""


@dataclasses.dataclass(frozen=True)
class RestartPolicy:
    """What each kind of end costs.

    Attributes:
        first_delay_s: from the first end of a kind to the restart; doubled by each further one.
        longest_delay_s: the delay grows no longer.
        crashes: what crashes as often within `window_s`, without progress in between, stays down: an
            estimate of a worker, an outer step of a learner.
        window_s: how long a crash counts.
        preemptions: a worker that is preempted as often within `preemption_window_s` stays down: at the
            longest delay, one whose machines hardly last.
        preemption_window_s: how long a preemption counts.
    """

    first_delay_s: float = 1.0
    longest_delay_s: float = 60.0
    crashes: int = 5
    window_s: float = 600.0
    preemptions: int = 50
    preemption_window_s: float = 3600.0

    def delay_s(self, ends: int) -> float:
        """Return how long to wait after so many ends of one kind."""
        return float(min(self.first_delay_s * 2.0 ** min(ends - 1, 30), self.longest_delay_s))


class RestartBudget:
    """The ends of one worker.

    Attributes:
        start_after: when its next process may be started.
        problem: why there will be none, for people; empty if there will.
        ends: processes that ended without being asked to.
        last_end: how the last of them did, for people.
    """

    def __init__(self, name: str, policy: RestartPolicy) -> None:
        self._name = name
        self._policy = policy
        self._crashes: list[float] = []
        self._preemptions: list[float] = []
        self.start_after = -math.inf
        self.problem = ""
        self.ends = 0
        self.last_end = ""

    def forgive(self) -> None:
        """It has delivered an estimate: earlier crashes count no more."""
        self._crashes.clear()

    def charge(self, kind: EndKind, ended: Exit, now: float) -> None:
        """Count an end."""
        if kind is EndKind.ASKED:
            return
        if kind is EndKind.DRAINED:
            self.start_after = now + self._policy.first_delay_s
            return
        self.ends += 1
        self.last_end = f"{kind}: {cause_of(ended)}"
        policy = self._policy
        match kind:
            case EndKind.EVICTED:
                self.start_after = now + policy.first_delay_s
            case EndKind.PREEMPTED:
                self._preemptions = _recent(self._preemptions, now, policy.preemption_window_s)
                self._charge(self._preemptions, policy.preemptions, "was preempted {} times", now)
            case EndKind.CRASHED:
                self._crashes = _recent(self._crashes, now, policy.window_s)
                what = "ended {} times without delivering an estimate"
                self._charge(self._crashes, policy.crashes, what, now)
            case EndKind.REFUSED:
                self.problem = (
                    f"worker {self._name} was refused by the learner, is not started again: {self._log} "
                    f"({self.last_end})"
                )

    def _charge(self, ends: list[float], limit: int, what: str, now: float) -> None:
        self.start_after = now + self._policy.delay_s(len(ends))
        if len(ends) >= limit:
            self.problem = (
                f"worker {self._name} {what.format(len(ends))} and is not started again: {self._log} "
                f"(the last time: {self.last_end})"
            )

    @property
    def _log(self) -> str:
        return f"see logs/{self._name}.log"


def cause_of(ended: Exit) -> str:
    """Return why a process ended in one line: Ray, and Python, say most at the end."""
    if ended.code == ExitCode.EVICTED:
        return "its lanes were taken away"
    return last_line(ended.cause, _CAUSE_CHARACTERS) or f"exit code {ended.code}"


def kind_of_exit(ended: Exit) -> EndKind:
    """Return what kind of end it was, from the exit code; for ends that were not requested."""
    if ended.preempted:
        return EndKind.PREEMPTED
    if ended.code == ExitCode.OK:
        return EndKind.DRAINED
    if ended.code == ExitCode.EVICTED:
        return EndKind.EVICTED
    return EndKind.REFUSED if ended.code == ExitCode.REFUSED else EndKind.CRASHED


def _recent(times: list[float], now: float, window_s: float) -> list[float]:
    return [*(at for at in times if now - at < window_s), now]
