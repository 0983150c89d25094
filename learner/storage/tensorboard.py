"""A writer of TensorBoard event files, one for each learner process.

It replaces tensorboardX's own writer, whose thread ends when the disk is full; calls that add a value then
block forever.
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
# Looked up by descriptor, because type checkers cannot see the content of the generated modules.
_Event: Any = GetMessageClass(event_pb2.DESCRIPTOR.message_types_by_name["Event"])
_SessionLog: Any = GetMessageClass(event_pb2.DESCRIPTOR.message_types_by_name["SessionLog"])
_Summary: Any = GetMessageClass(summary_pb2.DESCRIPTOR.message_types_by_name["Summary"])


class TensorBoardFile:
    """An event file. Not thread-safe."""

    def __init__(self, directory: Path, first_step: int) -> None:
        """Create a file whose values replace those of earlier files from `first_step` on."""
        now_s = time.time()
        self._file = AppendFile(directory / f"events.out.tfevents.{now_s:.0f}.{socket.gethostname()}")
        self._append(_Event(wall_time=now_s, file_version=_VERSION))
        start = _SessionLog(status=_SessionLog.START)
        self._append(_Event(wall_time=now_s, step=first_step, session_log=start))

    def add(self, figures: Mapping[str, float], step: int, unix_time_s: float) -> None:
        """Add one point to each curve, given values by tag.

        Raises:
            OSError: the values could not be written.
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
    """Return the TFRecord format's masked CRC-32C, ((crc >> 15) | (crc << 17)) + 0xA282EAD8 mod 2^32.

    The mask avoids the problems of computing the CRC of data that contains CRCs.
    """
    crc = crc32c(data)
    return struct.pack("<I", (((crc >> 15) | (crc << 17)) + _CRC_DELTA) & 0xFFFFFFFF)
