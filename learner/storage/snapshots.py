"""Lane snapshots on disk, `lanes/<lane>/seq-<n>.safetensors`, stored as received from a worker.

The learner never parses them. The chunks of a snapshot go straight to a temporary file, so memory use does
not depend on its size; the file is renamed to its final name only after its digest has been verified.
"""

import contextlib
import dataclasses
import hashlib
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from learner.errors import CorruptSnapshotError
from learner.storage.files import PARTIAL, flush_to_disk
from protos import codec
from protos.unspool.v1.common_pb2 import Chunk


@dataclasses.dataclass(frozen=True)
class SnapshotRef:
    """A reference to the file with a lane's unroll state after estimate `seq`.

    Attributes:
        lane: the lane's number.
        seq: the number of estimates that led to the state.
        sha256: the hex digest of the file.
    """

    lane: int
    seq: int
    sha256: str


class SnapshotStore:
    """The snapshot files of all lanes. Thread-safe, as each file is written by one thread.

    Args:
        directory: the directory of the files.
        fence: raises `FencedError` once a later learner process owns the directory.
    """

    def __init__(self, directory: Path, fence: Callable[[], None] = lambda: None) -> None:
        self.directory = directory
        self._fence = fence

    def path(self, lane: int, seq: int) -> Path:
        """Return the path for the snapshot of `lane` at `seq`."""
        return self.directory / str(lane) / f"seq-{seq:08d}.safetensors"

    def receive(self, ref: SnapshotRef, transfer: int, size: int) -> "SnapshotReceiver":
        """Start to write a snapshot of `size` bytes that arrives as the chunks of `transfer`."""
        path = self.path(ref.lane, ref.seq)
        path.parent.mkdir(parents=True, exist_ok=True)
        return SnapshotReceiver(ref, path, transfer, size, self._fence)

    def read(self, ref: SnapshotRef, chunk_bytes: int) -> Iterator[bytes]:
        """Yield the file's bytes in pieces of `chunk_bytes`.

        Raises:
            CorruptSnapshotError: the file is missing or corrupt; raised before the first piece.
        """
        self.verify(ref)
        with self.path(ref.lane, ref.seq).open("rb") as file:
            while piece := file.read(chunk_bytes):
                yield piece

    def verify(self, ref: SnapshotRef) -> None:
        """Compare a file with its digest.

        Raises:
            CorruptSnapshotError: the file is missing or its digest differs.
        """
        path = self.path(ref.lane, ref.seq)
        try:
            with path.open("rb") as file:
                sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise CorruptSnapshotError(f"{path}: {error}") from error
        if sha256 != ref.sha256:
            raise CorruptSnapshotError(f"{path}: sha256 {sha256}, expected {ref.sha256}")

    def make_durable(self, refs: list[SnapshotRef]) -> None:
        """Flush files to disk; called before a checkpoint that needs them is written."""
        for ref in refs:
            path = self.path(ref.lane, ref.seq)
            flush_to_disk(path)
            flush_to_disk(path.parent)

    def remove(self, lane: int, seq: int) -> None:
        """Delete a file if it exists."""
        self.path(lane, seq).unlink(missing_ok=True)

    def stored(self) -> Iterator[tuple[int, int]]:
        """Yield `(lane, seq)` of every file."""
        for path in sorted(self.directory.glob("*/seq-*.safetensors")):
            yield int(path.parent.name), int(path.stem.removeprefix("seq-"))


class SnapshotReceiver:
    """A snapshot that is being received."""

    def __init__(
        self, ref: SnapshotRef, path: Path, transfer: int, size: int, fence: Callable[[], None]
    ) -> None:
        self.ref = ref
        self._fence = fence
        self._path = path
        self._transfer = transfer
        self._size = size
        self._received = 0
        self._sha256 = hashlib.sha256()
        self._file = tempfile.NamedTemporaryFile(dir=path.parent, suffix=PARTIAL, delete=False)  # noqa: SIM115

    @property
    def complete(self) -> bool:
        """Whether every byte has been received."""
        return self._received == self._size

    def add(self, chunk: Chunk) -> None:
        """Write the next chunk.

        Raises:
            CodecError: the chunk does not continue the file; the receiver must be aborted.
            OSError: the chunk could not be written; the receiver must be aborted.
        """
        codec.check_chunk(chunk, self._transfer, self._received, self._size)
        self._file.write(chunk.data)
        self._sha256.update(chunk.data)
        self._received += len(chunk.data)

    def commit(self) -> None:
        """Verify the digest of the complete file and rename it to its final name.

        Raises:
            CorruptSnapshotError: the digest is not the announced one; the file is deleted.
            FencedError: another learner owns the directory.
            OSError: the file could not be written or renamed.
        """
        self._file.close()
        if self._sha256.hexdigest() != self.ref.sha256:
            self.abort()
            raise CorruptSnapshotError(
                f"snapshot of lane {self.ref.lane} at seq {self.ref.seq}: sha256 {self._sha256.hexdigest()}, "
                f"announced as {self.ref.sha256}"
            )
        self._fence()
        Path(self._file.name).replace(self._path)

    def abort(self) -> None:
        """Delete what has been received."""
        with contextlib.suppress(OSError):  # closing flushes the buffer, which fails on a full disk
            self._file.close()
        Path(self._file.name).unlink(missing_ok=True)
