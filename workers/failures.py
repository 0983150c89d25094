"""Exceptions as a worker tells its learner of them."""

from protos.failure_message import failure_message
from protos.unspool.v1 import learner_pb2
from unspool.failure_report import FailureReport, traceback_of

_TRACEBACK_CHARACTERS = 8000


def lane_failure(error: Exception, lane: int, incarnation: int, seq: int) -> learner_pb2.LaneFailure:
    """Return what to say of an estimate that raised `error`."""
    return learner_pb2.LaneFailure(
        lane=lane,
        incarnation=incarnation,
        seq=seq,
        traceback=_end_of(traceback_of(error)),
        report=failure_message(*FailureReport.of(error)),
    )


def _end_of(text: str) -> str:
    """Return the last lines that the learner has room for."""
    end = text[-_TRACEBACK_CHARACTERS:]
    return end if len(end) == len(text) else end.partition("\n")[2]
