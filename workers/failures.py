"""Exceptions as a worker tells its learner of them."""

from protos.unspool.v1 import common_pb2, learner_pb2
from unspool.failure_report import FailureReport, traceback_of

_TRACEBACK_CHARACTERS = 8000


def as_message(report: FailureReport) -> common_pb2.FailureReport:
    """Return a report as it travels."""
    path, line, function = report.frame or ("", 0, "")
    return common_pb2.FailureReport(
        type=report.type, message=report.message, path=path, line=line, function=function
    )


def lane_failure(error: Exception, lane: int, incarnation: int, seq: int) -> learner_pb2.LaneFailure:
    """Return what to say of an estimate that raised `error`."""
    return learner_pb2.LaneFailure(
        lane=lane,
        incarnation=incarnation,
        seq=seq,
        traceback=_end_of(traceback_of(error)),
        report=as_message(FailureReport.of(error)),
    )


def _end_of(text: str) -> str:
    """Return the last lines that the learner has room for."""
    end = text[-_TRACEBACK_CHARACTERS:]
    return end if len(end) == len(text) else end.partition("\n")[2]
