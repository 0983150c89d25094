"""Checkpoints: theta, the outer optimizer's state, thetas for replays, and all lanes' progress in one file.

Saving theta and the lanes' watermarks together makes each gradient count exactly once: after a crash, the
file states which estimates the restored theta contains; all others are acceptable again.
"""

import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import jax
import numpy as np

from learner.errors import ConfigChangedError, CorruptCheckpointError
from learner.storage.snapshots import SnapshotRef
from learner.storage.thetas import Published
from unspool.serialization import SerializationError, from_bytes, read_metadata, to_bytes
from unspool.types import PyTree

_FORMAT: Final = "2"
_NAMES_IN_FORMAT_1: Final = {"epoch": "term", "version": "outer_step", "ring_versions": "theta_outer_steps"}
_UNSIGNED: Final = "0" * 64  # the placeholder for the file's own digest while the digest is computed
_LENGTH_BYTES: Final = 8  # a safetensors file starts with the length of its header as a uint64
_VALUES: Final[Mapping[str, Callable[[str], Any]]] = MappingProxyType(
    {
        "run_id": str,
        "term": int,
        "config_sha256": str,
        "seed": int,
        "outer_step": int,
        "theta_sha256": str,
        "inner_steps": int,
        "elapsed_s": float,
        "moved_at": int,
    }
)
"""The entries of a header that are plain attributes of a checkpoint, and their types."""


@dataclasses.dataclass(frozen=True)
class LaneMark:
    """A lane's progress in a checkpoint.

    Attributes:
        lane: the lane's number.
        watermark: the seq of the last estimate that theta contains.
        fencing_token: the fencing token of its last lease.
        snapshot: its newest state at or before the watermark, or None.
    """

    lane: int
    watermark: int
    fencing_token: int
    snapshot: SnapshotRef | None


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """The state that a learner needs to resume.

    Attributes:
        run_id: the run's name.
        term: the term of the learner process that wrote it.
        config_sha256: the digest of the configuration that trains this theta.
        seed: the run's seed.
        theta: the current theta, as a tree.
        learner_state: the outer optimizer's state.
        thetas: the kept published thetas; the last one is `theta`.
        lanes: the progress of each lane, in order.
        inner_steps: the number of inner steps computed so far.
        elapsed_s: the run's elapsed time in seconds.
        moved_at: the outer step of the last update that moved theta; 0 if none has.
    """

    run_id: str
    term: int
    config_sha256: str
    seed: int
    theta: PyTree
    learner_state: PyTree
    thetas: tuple[Published, ...]
    lanes: tuple[LaneMark, ...]
    inner_steps: int
    elapsed_s: float
    moved_at: int

    @property
    def outer_step(self) -> int:
        """The number of outer updates that led to theta."""
        return self.thetas[-1].outer_step

    @property
    def theta_sha256(self) -> str:
        """The digest of theta."""
        return self.thetas[-1].sha256

    def snapshots(self) -> list[SnapshotRef]:
        """Return the lane states that resuming from this checkpoint needs."""
        return [mark.snapshot for mark in self.lanes if mark.snapshot is not None]


def encode(checkpoint: Checkpoint) -> bytes:
    """Return a checkpoint as the content of its file."""
    bodies = b"".join(published.body for published in checkpoint.thetas)
    arrays = {
        "theta": checkpoint.theta,
        "learner_state": checkpoint.learner_state,
        "thetas": np.frombuffer(bodies, np.uint8),
    }
    marks = [
        {
            "lane": mark.lane,
            "watermark": mark.watermark,
            "fencing_token": mark.fencing_token,
            "snapshot_seq": mark.snapshot.seq if mark.snapshot else 0,
            "snapshot_sha256": mark.snapshot.sha256 if mark.snapshot else "",
        }
        for mark in checkpoint.lanes
    ]
    metadata = {
        "format": _FORMAT,
        "file_sha256": _UNSIGNED,
        "theta_outer_steps": json.dumps([published.outer_step for published in checkpoint.thetas]),
        "lanes": json.dumps(marks),
        **{name: str(getattr(checkpoint, name)) for name in _VALUES},
    }
    data = to_bytes(arrays, metadata)
    return data.replace(_UNSIGNED.encode(), hashlib.sha256(data).hexdigest().encode(), 1)


def verify(data: bytes) -> dict[str, Any]:
    """Return a checkpoint's header, as `read_header` does, after verifying the digest over the whole file.

    Raises:
        CorruptCheckpointError: the file is corrupt; the error contains the reason.
    """
    header = _header(data)
    signed = header["file_sha256"]
    actual = hashlib.sha256(data.replace(signed.encode(), _UNSIGNED.encode(), 1)).hexdigest()
    if actual != signed:
        raise CorruptCheckpointError(f"sha256 {actual}, written was {signed}")
    return header


def decode(data: bytes, header: dict[str, Any], like: PyTree) -> Checkpoint:
    """Return the checkpoint in a verified file.

    Args:
        data: the content of the file.
        header: the result of `verify`.
        like: the shapes of `{"theta": ..., "learner_state": ...}`.

    Raises:
        ConfigChangedError: the file's arrays do not match `like`.
    """
    outer_steps = header["theta_outer_steps"]
    body_bytes = sum(leaf.size * np.dtype(leaf.dtype).itemsize for leaf in jax.tree.leaves(like["theta"]))
    name = "theta_ring" if header["format"] == "1" else "thetas"
    arrays = _arrays(data, {**like, name: np.empty(len(outer_steps) * body_bytes, np.uint8)}, partial=False)
    bodies = arrays[name].reshape(len(outer_steps), body_bytes)
    thetas = zip(outer_steps, bodies, strict=True)
    return Checkpoint(
        theta=arrays["theta"],
        learner_state=arrays["learner_state"],
        thetas=tuple(Published.of(outer_step, body.tobytes()) for outer_step, body in thetas),
        lanes=header["lanes"],
        **{name: header[name] for name in _VALUES if name not in ("outer_step", "theta_sha256")},
    )


def load_theta(path: Path, like: PyTree) -> PyTree:
    """Return the theta in a checkpoint file; `like` has its structure, shapes and dtypes.

    Raises:
        CorruptCheckpointError: the file is corrupt.
        ConfigChangedError: its theta does not match `like`.
    """
    data = path.read_bytes()
    verify(data)
    return _arrays(data, {"theta": like}, partial=True)["theta"]


def read_header(path: Path) -> dict[str, Any]:
    """Return a checkpoint file's header, with parsed values, without reading or verifying its arrays.

    Raises:
        CorruptCheckpointError: the file does not start with the header of a checkpoint.
    """
    with path.open("rb") as file:
        length = file.read(_LENGTH_BYTES)
        size = min(int.from_bytes(length, "little"), path.stat().st_size)
        return _header(length + file.read(size))


def _arrays(data: bytes, like: dict[str, Any], *, partial: bool) -> dict[str, Any]:
    try:
        return from_bytes(data, like, partial=partial)
    except SerializationError as error:
        raise ConfigChangedError(f"the checkpoint does not fit the configuration: {error}") from error


def _header(data: bytes) -> dict[str, Any]:
    try:
        metadata = read_metadata(data)
    except SerializationError as error:
        raise CorruptCheckpointError(str(error)) from error
    if metadata.get("format") == "1":
        metadata = {_NAMES_IN_FORMAT_1.get(name, name): text for name, text in metadata.items()}
    elif metadata.get("format") != _FORMAT:
        raise CorruptCheckpointError(f"format {metadata.get('format')!r}; this version reads 1 and {_FORMAT}")
    # Files of earlier versions lack this entry; assume that their last update moved theta.
    metadata.setdefault("moved_at", metadata.get("outer_step", ""))
    header = {}
    for name, read in _ENTRIES.items():
        try:
            header[name] = read(metadata[name])
        except (KeyError, TypeError, ValueError) as error:
            raise CorruptCheckpointError(f"its {name} cannot be read: {error!r}") from error
    return header


def _marks(text: str) -> tuple[LaneMark, ...]:
    return tuple(_mark(mark) for mark in json.loads(text))


def _mark(mark: dict[str, Any]) -> LaneMark:
    lane, seq = mark["lane"], mark["snapshot_seq"]
    snapshot = SnapshotRef(lane, seq, mark["snapshot_sha256"]) if seq else None
    fencing_token = mark["incarnation"] if "incarnation" in mark else mark["fencing_token"]  # as in format 1
    return LaneMark(lane, mark["watermark"], fencing_token, snapshot)


_ENTRIES: Final[Mapping[str, Callable[[str], Any]]] = MappingProxyType(
    {"format": str, "file_sha256": str, "theta_outer_steps": json.loads, "lanes": _marks, **_VALUES}
)
"""All entries of a header, and their parsers."""
