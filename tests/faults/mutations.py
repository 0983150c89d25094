"""Invalid messages and bytes: random, truncated, repeated, overwritten, or with extreme numbers."""

import random
from collections.abc import Callable
from typing import Any, Final

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError, Message

_NUMBERS: Final = (0, 1, 2, 3, 127, 128, 2**31 - 1, 2**32 - 1)
_LARGE: Final = (2**32, 2**63 - 1, 2**64 - 1)
_FLOATS: Final = (0.0, -1.0, 1e-300, 1e300, float("inf"), float("-inf"), float("nan"))
_TEXTS: Final = ("", "w0", "\x00", "é" * 40, "a" * 5000, "../../etc/passwd", "0" * 64)
_WIDE: Final = (FieldDescriptor.TYPE_UINT64, FieldDescriptor.TYPE_INT64)


def mutated_bytes(draws: random.Random, data: bytes) -> bytes:
    """Return `data` with one to three changes, or unrelated bytes."""
    if draws.random() < 0.05:
        return draws.randbytes(draws.randrange(200))
    for _ in range(draws.randrange(1, 4)):
        data = draws.choice(_CHANGES)(draws, data)
    return data


def mutated_message(draws: random.Random, message: Message) -> Message:
    """Return a copy with an extreme value in some (nested) field, or a copy parsed from mutated bytes."""
    changed = type(message)()
    changed.CopyFrom(message)
    if draws.random() < 0.5:
        _spoil(draws, changed)
        return changed
    try:
        return type(message).FromString(mutated_bytes(draws, message.SerializeToString()))
    except DecodeError:
        return changed


def _overwritten(draws: random.Random, data: bytes) -> bytes:
    at = draws.randrange(len(data) + 1)
    return data[:at] + draws.randbytes(1) + data[at + 1 :]


def _cut(draws: random.Random, data: bytes) -> bytes:
    return data[: draws.randrange(len(data) + 1)]


def _without_a_piece(draws: random.Random, data: bytes) -> bytes:
    at = draws.randrange(len(data) + 1)
    return data[:at] + data[at + draws.randrange(1, 9) :]


def _repeated_piece(draws: random.Random, data: bytes) -> bytes:
    at = draws.randrange(len(data) + 1)
    return data[:at] + data[at : at + draws.randrange(1, 30)] + data[at:]


def _with_great_number(draws: random.Random, data: bytes) -> bytes:
    at = draws.randrange(len(data) + 1)
    return data[:at] + b"\xff" * draws.randrange(1, 10) + b"\x7f" + data[at + 1 :]


_CHANGES: Final[tuple[Callable[[random.Random, bytes], bytes], ...]] = (
    _overwritten,
    _overwritten,
    _cut,
    _without_a_piece,
    _repeated_piece,
    _with_great_number,
)


def _spoil(draws: random.Random, message: Message) -> None:
    fields = message.DESCRIPTOR.fields
    if not fields:
        return
    field = draws.choice(fields)
    if field.type == FieldDescriptor.TYPE_MESSAGE:
        if not field.is_repeated:
            _spoil(draws, getattr(message, field.name))
        elif not field.message_type.GetOptions().map_entry:
            _spoil(draws, getattr(message, field.name).add())
    elif field.is_repeated:
        getattr(message, field.name).extend(_absurd(draws, field) for _ in range(draws.randrange(1, 50)))
    else:
        setattr(message, field.name, _absurd(draws, field))


def _absurd(draws: random.Random, field: FieldDescriptor) -> Any:
    match field.type:
        case FieldDescriptor.TYPE_STRING:
            return draws.choice(_TEXTS)
        case FieldDescriptor.TYPE_BYTES:
            return draws.randbytes(draws.randrange(100))
        case FieldDescriptor.TYPE_DOUBLE | FieldDescriptor.TYPE_FLOAT:
            return draws.choice(_FLOATS)
        case FieldDescriptor.TYPE_BOOL:
            return draws.random() < 0.5
        case FieldDescriptor.TYPE_ENUM:
            return draws.randrange(20)
        case _ if field.type in _WIDE:
            number = draws.choice(_NUMBERS + _LARGE)
            return number if field.type == FieldDescriptor.TYPE_UINT64 else number % 2**63
        case _:
            return draws.choice(_NUMBERS)
