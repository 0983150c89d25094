"""Recent exceptions that ended workers, for status: each kind once, with its count and last occurrence.

`learner.state.failures` uses failures to judge lanes and hosts. This module reports them to people, whether
or not a later estimate of the same lane succeeds.
"""

import dataclasses
import re
from collections.abc import Callable
from typing import Final, TypeAlias

from learner.state.sessions import WorkerSession
from protos.messages import failure_message
from protos.unspool.v1 import common_pb2
from protos.unspool.v1.admin_pb2 import FailureSummary
from unspool.failure_report import FailureReport, Frame

SHOWN_S: Final = 600.0
"""How long status shows an exception after its last occurrence."""

_KEPT: Final = 32
_CHARACTERS: Final = 300
_NUMBER: Final = re.compile(r"\d+")
_Key: TypeAlias = tuple[str, Frame | None, str]


@dataclasses.dataclass
class CodeFailure:
    """Exceptions of the same type and line whose messages differ only in numbers.

    Attributes:
        report: the report of the first occurrence.
        count: the number of worker processes that it ended.
        session: the session of the last occurrence.
        lane: the lane of the failed estimate at the last occurrence, or None.
        last_s: the time of the last occurrence.
    """

    report: FailureReport
    count: int
    session: WorkerSession
    lane: int | None
    last_s: float


class CodeFailures:
    """The exceptions that workers have reported to this learner process."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._failures: dict[_Key, CodeFailure] = {}

    def add(self, report: FailureReport, session: WorkerSession, lane: int | None = None) -> None:
        """Record an exception; a repeated report by the same session is not counted again."""
        key = (report.type, report.frame, _NUMBER.sub("#", report.message))
        known = self._failures.pop(key, None)
        if known is not None and known.session is session:
            self._failures[key] = known
            return
        first, count = (known.report, known.count) if known is not None else (report, 0)
        self._failures[key] = CodeFailure(first, count + 1, session, lane, self._clock())
        if len(self._failures) > _KEPT:
            del self._failures[next(iter(self._failures))]

    def recent(self) -> list[CodeFailure]:
        """Return the failures of the last `SHOWN_S` seconds, the most recent last."""
        now_s = self._clock()
        return [failure for failure in self._failures.values() if now_s - failure.last_s <= SHOWN_S]

    def summaries(self) -> list[FailureSummary]:
        """Return the recent failures as messages for status."""
        now_s = self._clock()
        return [
            FailureSummary(
                failure=failure_message(*failure.report),
                count=failure.count,
                worker=failure.session.name,
                host=failure.session.join_request.host,
                lane=failure.lane,
                age_s=now_s - failure.last_s,
            )
            for failure in self.recent()
        ]


def read_report(message: common_pb2.FailureReport) -> FailureReport:
    """Return a worker's report, with texts truncated to a length that fits into a status."""
    path, function = message.path[:_CHARACTERS], message.function[:_CHARACTERS]
    frame = Frame(path, message.line, function) if path else None
    return FailureReport(message.type[:_CHARACTERS], message.message[:_CHARACTERS], frame)
