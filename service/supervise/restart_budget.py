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
    """The learner or an admin took its lanes away; another process may work."""
    DRAINED = "drained"
    """An admin drained it, or the run is over; it is restarted if it is still wanted."""
    PREEMPTED = "preempted"
    """Its machine was taken away, or it was sent SIGTERM."""
    CRASHED = "crashed"
    REFUSED = "refused"
    """The learner refuses it, and would refuse another process started the same way."""


@dataclasses.dataclass(frozen=True)
class RestartPolicy:
    """The delay and the limit for each kind of end.

    Attributes:
        first_delay_s: delay of the restart after the first end of a kind; doubled after each further one.
        longest_delay_s: upper limit of the delay.
        crashes: number of crashes within `window_s`, without progress in between, that ends the restarts.
            Progress is an estimate of a worker, or an outer step of a learner.
        window_s: how long a crash counts.
        preemptions: number of preemptions of a worker within `preemption_window_s` that ends the restarts. At
            the longest delay, only a worker whose machines hardly last reaches it.
        preemption_window_s: how long a preemption counts.
    """

    first_delay_s: float = 1.0
    longest_delay_s: float = 60.0
    crashes: int = 5
    window_s: float = 600.0
    preemptions: int = 50
    preemption_window_s: float = 3600.0

    def delay_s(self, ends: int) -> float:
        """Return the delay after `ends` recent ends of one kind."""
        return float(min(self.first_delay_s * 2.0 ** min(ends - 1, 30), self.longest_delay_s))


class RestartBudget:
    """Counts the ends of one worker's processes.

    Attributes:
        start_after: time from which its next process may be started.
        problem: why the worker is not restarted, for people; empty if it may be.
        ends: number of processes that ended without being requested to.
        last_end: how the last of them ended, for people.
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
        """Clear the crashes, because the worker has delivered an estimate."""
        self._crashes.clear()

    def charge(self, kind: EndKind, ended: Exit, now: float) -> None:
        """Count an end of `kind` and set the time or the refusal of the next start."""
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
                self._preemptions = recent(self._preemptions, now, policy.preemption_window_s)
                self._charge(self._preemptions, policy.preemptions, "was preempted {} times", now)
            case EndKind.CRASHED:
                self._crashes = recent(self._crashes, now, policy.window_s)
                what = "ended {} times without delivering an estimate"
                self._charge(self._crashes, policy.crashes, what, now)
            case EndKind.REFUSED:
                self._give_up("was refused by the learner")

    def _charge(self, ends: list[float], limit: int, what: str, now: float) -> None:
        self.start_after = now + self._policy.delay_s(len(ends))
        if len(ends) >= limit:
            self._give_up(what.format(len(ends)))

    def _give_up(self, why: str) -> None:
        log = f"see logs/{self._name}.log (the last time: {self.last_end})"
        self.problem = f"worker {self._name} {why} and is not restarted: {log}"


def cause_of(ended: Exit) -> str:
    """Return why a process ended: the last line of the message, where Ray and Python put the cause."""
    if ended.code == ExitCode.EVICTED:
        return "its lanes were leased to others"
    return last_line(ended.cause, _CAUSE_CHARACTERS) or f"exit code {ended.code}"


def kind_of_exit(ended: Exit) -> EndKind:
    """Return the kind of an end that was not requested, from the exit code."""
    if ended.preempted:
        return EndKind.PREEMPTED
    if ended.code == ExitCode.OK:
        return EndKind.DRAINED
    if ended.code == ExitCode.EVICTED:
        return EndKind.EVICTED
    return EndKind.REFUSED if ended.code == ExitCode.REFUSED else EndKind.CRASHED


def recent(times: list[float], now: float, window_s: float) -> list[float]:
    """Return `now` and those of the earlier `times` that are less than `window_s` seconds old."""
    return [*(at for at in times if now - at < window_s), now]
