"""An exception in a user's code, as it travels."""

from protos.unspool.v1 import common_pb2


def failure_message(
    exception_type: str, message: str, frame: tuple[str, int, str] | None
) -> common_pb2.FailureReport:
    """Return the parts of a `unspool.failure_report.FailureReport`, in its order, as a message.

    Args:
        exception_type: the name of the exception's class.
        message: what it says.
        frame: path, line and function that raised it, or None if that is unknown.
    """
    path, line, function = frame or ("", 0, "")
    return common_pb2.FailureReport(
        type=exception_type, message=message, path=path, line=line, function=function
    )
