"""TensorBoard event files: their framing, and what they say about restarts."""

import struct
from pathlib import Path
from typing import Any

import pytest
from tensorboardX.crc32c import crc32c
from tensorboardX.proto import event_pb2

from learner.storage.tensorboard import TensorBoardFile


def write(directory: Path, first_step: int = 1, **figures: float) -> bytes:
    file = TensorBoardFile(directory, first_step)
    file.add(figures, step=7, unix_time_s=123.5)
    file.close()
    (path,) = directory.glob("events.out.tfevents.*")
    return path.read_bytes()


def masked_crc(data: bytes) -> int:
    crc = crc32c(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def events_in(data: bytes) -> list[Any]:
    """Return the events of a file after checking both checksums of every record."""
    events = []
    while data:
        (length,), (length_crc,) = struct.unpack("<Q", data[:8]), struct.unpack("<I", data[8:12])
        body, (body_crc,) = data[12 : 12 + length], struct.unpack("<I", data[12 + length : 16 + length])
        assert (length_crc, body_crc) == (masked_crc(data[:8]), masked_crc(body))
        events.append(event_pb2.Event.FromString(body))
        data = data[16 + length :]
    return events


def test_a_file_starts_with_its_version_and_the_first_step(tmp_path: Path) -> None:
    version, start, _ = events_in(write(tmp_path, first_step=5, loss=1.0))
    assert version.file_version == "brain.Event:2"
    assert (start.step, start.session_log.status) == (5, event_pb2.SessionLog.START)


def test_all_values_of_a_step_are_in_one_event(tmp_path: Path) -> None:
    *_, event = events_in(write(tmp_path, loss=0.5, norm=2.0))
    assert (event.step, event.wall_time) == (7, 123.5)
    assert {value.tag: value.simple_value for value in event.summary.value} == {"loss": 0.5, "norm": 2.0}


def test_errors_in_writing_reach_the_caller(tmp_path: Path) -> None:
    file = TensorBoardFile(tmp_path, 1)
    file.close()
    with pytest.raises(ValueError, match="closed"):
        file.add({"loss": 1.0}, step=1, unix_time_s=0.0)
