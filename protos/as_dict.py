"""Conversion of messages to plain values, for `/status.json` and `--json`.

Protobuf's own JSON format is not used, because it writes 64-bit integers as strings.
"""

import math
from typing import Any, TypeAlias

Facts = dict[str, Any]
Message: TypeAlias = Any  # protobuf ships no types
FieldDescriptor: TypeAlias = Any


def as_dict(message: Message) -> Facts:
    """Return a message as a dict by field name; absent optional fields and non-finite floats are None."""
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
