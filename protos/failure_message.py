"""Conversion of failure reports to messages."""

from protos.unspool.v1 import common_pb2


def failure_message(
    exception_type: str, message: str, frame: tuple[str, int, str] | None
) -> common_pb2.FailureReport:
    """Return the fields of a `unspool.failure_report.FailureReport`, in its order, as a message.

    Args:
        exception_type: the name of the exception's class.
        message: the exception's text.
        frame: the path, line and function that raised it, or None if unknown.
    """
    path, line, function = frame or ("", 0, "")
    return common_pb2.FailureReport(
        type=exception_type, message=message, path=path, line=line, function=function
    )
