"""Conversions between messages and plain values."""

import math
from typing import Any, TypeAlias

from protos.unspool.v1 import common_pb2

Message: TypeAlias = Any  # protobuf ships no types
FieldDescriptor: TypeAlias = Any


def as_dict(message: Message) -> dict[str, Any]:
    """Return a message as a dict by field name; absent optional fields and non-finite floats are None.

    Protobuf's own JSON format would write 64-bit integers as strings.
    """
    return {field.name: _value_of(message, field) for field in message.DESCRIPTOR.fields}


def _value_of(message: Message, field: FieldDescriptor) -> Any:
    # Only optional fields can be absent; an unset message field is converted with its defaults.
    if field.containing_oneof is not None and not message.HasField(field.name):
        return None
    value = getattr(message, field.name)
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        return dict(value)
    return [_plain(item) for item in value] if field.is_repeated else _plain(value)


def _plain(value: Any) -> Any:
    if hasattr(value, "DESCRIPTOR"):
        return as_dict(value)
    return None if isinstance(value, float) and not math.isfinite(value) else value


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
