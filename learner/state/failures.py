"""Failures of estimates: which are identical, and on which lanes and hosts they occurred."""

import hashlib
import re
from pathlib import PurePosixPath
from typing import Final, NamedTuple

from learner.state.code_failures import read_report
from protos.unspool.v1 import learner_pb2
from unspool.failure_report import FailureReport, last_line

IDENTICAL: Final = 3
"""The number of identical failures after which a lane is quarantined or a host excluded."""

_TRACEBACK_CHARACTERS: Final = 8000
_KEPT: Final = 256
_FRAME: Final = re.compile(r' *File "([^"]+)", line (\d+), in (.*)')
_NUMBER: Final = re.compile(r"\b(?:0x)?(?=[a-f]*[0-9])[0-9a-f]+\b|[0-9]+")


class Failure(NamedTuple):
    """An estimate that raised an exception.

    Attributes:
        lane: the estimate's lane.
        seq: its sequence number within the lane.
        host: the host that computed it.
        digest: equal for failures with the same cause; see `digest_of`.
        traceback: the end of the traceback that the worker sent.
        report: the exception and the line that raised it, or None if the worker sent no report.
    """

    lane: int
    seq: int
    host: str
    digest: str
    traceback: str
    report: FailureReport | None = None

    @classmethod
    def read(cls, message: learner_pb2.LaneFailure, host: str) -> "Failure":
        """Return the failure that a worker on `host` reports."""
        traceback = message.traceback[-_TRACEBACK_CHARACTERS:]
        report = read_report(message.report) if message.HasField("report") else None
        return cls(message.lane, message.seq, host, digest_of(traceback), traceback, report)

    @property
    def error(self) -> str:
        """The exception as one line."""
        if self.report is not None:
            return str(self.report)
        return last_line(self.traceback) or "an exception without a traceback"


def digest_of(traceback: str) -> str:
    """Return a digest of an exception's type, message and frames.

    Numbers and addresses in the message are ignored, because they differ between occurrences, and so are the
    folders of source files, because they differ between hosts. Line numbers of frames are included.
    """
    sha256 = hashlib.sha256()
    for line in traceback.splitlines():
        frame = _FRAME.match(line)
        text = f"{PurePosixPath(frame[1]).name} {frame[2]} {frame[3]}" if frame else _NUMBER.sub("#", line)
        sha256.update(text.encode() + b"\n")
    return sha256.hexdigest()


class FailureLog:
    """Failures since the last success, by lane and by lane and host."""

    def __init__(self) -> None:
        self._of_lanes: list[Failure] = []
        self._on_hosts: list[Failure] = []

    def add(self, failure: Failure) -> None:
        """Record a failure; at most `_KEPT` are kept."""
        self._of_lanes = [*self._of_lanes, failure][-_KEPT:]
        self._on_hosts = [*self._on_hosts, failure][-_KEPT:]

    def succeeded(self, lane: int, seq: int, host: str) -> None:
        """Record a successful estimate; failures of later estimates still count."""
        self._of_lanes = [item for item in self._of_lanes if item.lane != lane or item.seq > seq]
        self._on_hosts = [
            item for item in self._on_hosts if (item.lane, item.host) != (lane, host) or item.seq > seq
        ]

    def forget_lane(self, lane: int) -> None:
        """Reset a lane's failure count."""
        self._of_lanes = [item for item in self._of_lanes if item.lane != lane]

    def forget_host(self, host: str) -> None:
        """Discard all failures on a host: the host caused them, not the lanes."""
        self._of_lanes = [item for item in self._of_lanes if item.host != host]
        self._on_hosts = [item for item in self._on_hosts if item.host != host]

    def count(self, lane: int) -> int:
        """Return the number of a lane's failures since its last success."""
        return sum(item.lane == lane for item in self._of_lanes)

    def repeats(self, lane: int) -> int:
        """Return how many of a lane's failures are identical to its last one."""
        digests = [item.digest for item in self._of_lanes if item.lane == lane]
        return digests.count(digests[-1]) if digests else 0

    def lanes_failing(self, host: str, digest: str) -> list[int]:
        """Return the lanes that failed with this digest on a host, once per failure."""
        return [item.lane for item in self._on_hosts if (item.host, item.digest) == (host, digest)]
