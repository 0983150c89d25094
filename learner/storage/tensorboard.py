"""A run's figures as TensorBoard reads them: an event file for each learner process.

It is written here and not by tensorboardX's own writer, whose thread ends when the disk is full; a caller
that adds a figure then never returns.
"""

import socket
import struct
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from google.protobuf.message_factory import GetMessageClass
from tensorboardX.crc32c import crc32c
from tensorboardX.proto import event_pb2, summary_pb2

from learner.storage.files import AppendFile

_VERSION: Final = "brain.Event:2"
_CRC_DELTA: Final = 0xA282EAD8
# By their descriptors: the generated modules tell no type checker what is in them.
_Event: Any = GetMessageClass(event_pb2.DESCRIPTOR.message_types_by_name["Event"])
_SessionLog: Any = GetMessageClass(event_pb2.DESCRIPTOR.message_types_by_name["SessionLog"])
_Summary: Any = GetMessageClass(summary_pb2.DESCRIPTOR.message_types_by_name["Summary"])


class TensorBoardFile:
    """An event file. One thread uses it."""

    def __init__(self, directory: Path, first_step: int) -> None:
        """Begin a file whose figures replace what earlier ones have from `first_step` on."""
        now_s = time.time()
        self._file = AppendFile(directory / f"events.out.tfevents.{now_s:.0f}.{socket.gethostname()}")
        self._append(_Event(wall_time=now_s, file_version=_VERSION))
        start = _SessionLog(status=_SessionLog.START)
        self._append(_Event(wall_time=now_s, step=first_step, session_log=start))

    def add(self, figures: Mapping[str, float], step: int, unix_time_s: float) -> None:
        """Add a point to each of some curves.

        Raises:
            OSError: the disk refused.
        """
        values = [_Summary.Value(tag=tag, simple_value=value) for tag, value in figures.items()]
        self._append(_Event(wall_time=unix_time_s, step=step, summary=_Summary(value=values)))

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _append(self, event: Any) -> None:
        data: bytes = event.SerializeToString()
        length = struct.pack("<Q", len(data))
        self._file.append(length + _checksum(length) + data + _checksum(data))


def _checksum(data: bytes) -> bytes:
    """The format's "masked" CRC-32C: rotated and shifted, for data that holds checksums itself."""
    crc = crc32c(data)
    return struct.pack("<I", (((crc >> 15) | (crc << 17)) + _CRC_DELTA) & 0xFFFFFFFF)
