"""What estimates failed with: which failures are the same, and where each has been seen."""

import hashlib
import re
from pathlib import PurePosixPath
from typing import Final, NamedTuple

from learner.state.code_failures import read_report
from protos.unspool.v1 import learner_pb2
from unspool.failure_report import FailureReport, last_line

IDENTICAL: Final = 3
"""Identical failures after which a person has to look."""

_TRACEBACK_CHARACTERS: Final = 8000
_KEPT: Final = 256
_FRAME: Final = re.compile(r' *File "([^"]+)", line (\d+), in (.*)')
_NUMBER: Final = re.compile(r"\b(?:0x)?(?=[a-f]*[0-9])[0-9a-f]+\b|[0-9]+")


class Failure(NamedTuple):
    """An estimate that raised.

    Attributes:
        lane: whose estimate it was.
        seq: which of the lane's.
        host: where it was computed.
        digest: equal for failures of the same cause; see `digest_of`.
        traceback: as the worker sent it, up to a bound.
        report: the exception and the line to look at, or None from a worker that does not say.
    """

    lane: int
    seq: int
    host: str
    digest: str
    traceback: str
    report: FailureReport | None = None

    @classmethod
    def read(cls, message: learner_pb2.LaneFailure, host: str) -> "Failure":
        """Return what a worker on `host` reports."""
        traceback = message.traceback[-_TRACEBACK_CHARACTERS:]
        report = read_report(message.report) if message.HasField("report") else None
        return cls(message.lane, message.seq, host, digest_of(traceback), traceback, report)

    @property
    def error(self) -> str:
        """The exception in one line."""
        if self.report is not None:
            return str(self.report)
        return last_line(self.traceback) or "an exception without a traceback"


def digest_of(traceback: str) -> str:
    """Return a digest of exception type, message and frames.

    Numbers and addresses in the message, which differ each time, do not count; nor do the folders that the
    code lies in, which differ between hosts. Line numbers of frames do.
    """
    sha256 = hashlib.sha256()
    for line in traceback.splitlines():
        frame = _FRAME.match(line)
        sha256.update((_without_folder(frame) if frame else _NUMBER.sub("#", line)).encode() + b"\n")
    return sha256.hexdigest()


def _without_folder(frame: re.Match[str]) -> str:
    path, line, function = frame.groups()
    return f"{PurePosixPath(path).name} {line} {function}"


class FailureLog:
    """Failures since the last success: of each lane anywhere, and of each lane on each host."""

    def __init__(self) -> None:
        self._of_lanes: list[Failure] = []
        self._on_hosts: list[Failure] = []

    def add(self, failure: Failure) -> None:
        """Record a failure; the oldest is forgotten where there are too many."""
        self._of_lanes = [*self._of_lanes, failure][-_KEPT:]
        self._on_hosts = [*self._on_hosts, failure][-_KEPT:]

    def succeeded(self, lane: int, seq: int, host: str) -> None:
        """Record that an estimate came; failures of later ones still count."""
        self._of_lanes = [item for item in self._of_lanes if item.lane != lane or item.seq > seq]
        self._on_hosts = [
            item for item in self._on_hosts if (item.lane, item.host) != (lane, host) or item.seq > seq
        ]

    def forget_lane(self, lane: int) -> None:
        """Count a lane's failures from 0 again."""
        self._of_lanes = [item for item in self._of_lanes if item.lane != lane]

    def forget_host(self, host: str) -> None:
        """Forget everything that failed on a host: the host was to blame, not the lanes."""
        self._of_lanes = [item for item in self._of_lanes if item.host != host]
        self._on_hosts = [item for item in self._on_hosts if item.host != host]

    def count(self, lane: int) -> int:
        """Return how many estimates of a lane failed, one after another."""
        return sum(item.lane == lane for item in self._of_lanes)

    def repeats(self, lane: int) -> int:
        """Return how many of a lane's failures are the same as its last."""
        digests = [item.digest for item in self._of_lanes if item.lane == lane]
        return digests.count(digests[-1]) if digests else 0

    def lanes_failing(self, host: str, digest: str) -> list[int]:
        """Return whose estimates failed in this way on a host, once for each time."""
        return [item.lane for item in self._on_hosts if (item.host, item.digest) == (host, digest)]
