"""Exceptions that ended workers recently: each kind once, with how often and where the last time.

`learner.state.failures` judges lanes and hosts by what estimates fail with; this tells people what fails,
whether or not an estimate of the same lane succeeds afterwards.
"""

import dataclasses
import re
from collections.abc import Callable
from typing import Final, TypeAlias

from protos.failure_message import failure_message
from protos.unspool.v1 import common_pb2
from protos.unspool.v1.admin_pb2 import FailureSummary
from unspool.failure_report import FailureReport, Frame

SHOWN_S: Final = 600.0
"""How long after the last one an exception is a problem of the run."""

_KEPT: Final = 32
_CHARACTERS: Final = 300
_NUMBER: Final = re.compile(r"\d+")
_Key: TypeAlias = tuple[str, Frame | None, str]


@dataclasses.dataclass
class CodeFailure:
    """Exceptions of one type, raised by one line, whose messages differ in numbers at most.

    Attributes:
        report: of the first.
        count: workers that it has ended.
        session: of the last of them.
        worker: its name.
        host: where that was.
        lane: whose estimate it was, or None.
        last_s: when that was.
    """

    report: FailureReport
    count: int
    session: str
    worker: str
    host: str
    lane: int | None
    last_s: float


class CodeFailures:
    """The exceptions that workers have reported to this learner process."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._failures: dict[_Key, CodeFailure] = {}

    def add(
        self, report: FailureReport, *, session: str, worker: str, host: str, lane: int | None = None
    ) -> None:
        """Record an exception; a worker process that reports it again is not counted twice."""
        key = (report.type, report.frame, _NUMBER.sub("#", report.message))
        known = self._failures.pop(key, None)
        if known is not None and known.session == session:
            self._failures[key] = known
            return
        first, count = (known.report, known.count) if known is not None else (report, 0)
        self._failures[key] = CodeFailure(first, count + 1, session, worker, host, lane, self._clock())
        if len(self._failures) > _KEPT:
            del self._failures[next(iter(self._failures))]

    def recent(self) -> list[CodeFailure]:
        """Return those of the last `SHOWN_S` seconds, the newest last."""
        now_s = self._clock()
        return [failure for failure in self._failures.values() if now_s - failure.last_s <= SHOWN_S]

    def summaries(self) -> list[FailureSummary]:
        """Return `recent` as a status has it."""
        now_s = self._clock()
        return [
            FailureSummary(
                failure=failure_message(*failure.report),
                count=failure.count,
                worker=failure.worker,
                host=failure.host,
                lane=failure.lane,
                age_s=now_s - failure.last_s,
            )
            for failure in self.recent()
        ]


def read_report(message: common_pb2.FailureReport) -> FailureReport:
    """Return what a worker says, no longer than a status has room for."""
    path, function = message.path[:_CHARACTERS], message.function[:_CHARACTERS]
    frame = Frame(path, message.line, function) if path else None
    return FailureReport(message.type[:_CHARACTERS], message.message[:_CHARACTERS], frame)
