"""Lane snapshots on disk: `lanes/<lane>/seq-<n>.safetensors`, written as some worker sent them.

The learner never looks inside. A snapshot arrives in chunks that go straight to a temporary file, so that
memory does not grow with its size, and it takes its name only when its digest is right.
"""

import contextlib
import dataclasses
import hashlib
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from learner.errors import CorruptSnapshotError
from learner.storage.files import PARTIAL, flush_to_disk, remove_partial
from protos import codec
from protos.unspool.v1.common_pb2 import Chunk

_READ_BYTES = 1 << 20


@dataclasses.dataclass(frozen=True)
class SnapshotRef:
    """A lane's unroll state after estimate `seq`, as a file.

    Attributes:
        lane: whose state it is.
        seq: estimates behind it.
        sha256: hex digest of the file.
    """

    lane: int
    seq: int
    sha256: str


class SnapshotStore:
    """The files of all lanes. Safe to use from several threads: each file is written by one of them.

    Args:
        directory: where they are.
        fence: raises `FencedError` once a later learner process owns the directory.
    """

    def __init__(self, directory: Path, fence: Callable[[], None] = lambda: None) -> None:
        self._directory = directory
        self._fence = fence

    def path(self, lane: int, seq: int) -> Path:
        """Return where the snapshot of `lane` at `seq` is or would be."""
        return self._directory / str(lane) / f"seq-{seq:08d}.safetensors"

    def receive(self, ref: SnapshotRef, transfer: int, size: int) -> "SnapshotReceiver":
        """Begin to write a snapshot of `size` bytes that comes as the chunks of `transfer`."""
        path = self.path(ref.lane, ref.seq)
        path.parent.mkdir(parents=True, exist_ok=True)
        return SnapshotReceiver(ref, path, transfer, size, self._fence)

    def read(self, ref: SnapshotRef, chunk_bytes: int) -> Iterator[bytes]:
        """Return the file's bytes in pieces.

        Raises:
            CorruptSnapshotError: before the first piece, if it is not what was stored.
        """
        self.verify(ref)
        with self.path(ref.lane, ref.seq).open("rb") as file:
            while piece := file.read(chunk_bytes):
                yield piece

    def verify(self, ref: SnapshotRef) -> None:
        """Compare a file with its digest.

        Raises:
            CorruptSnapshotError: it is missing or differs.
        """
        path = self.path(ref.lane, ref.seq)
        sha256 = hashlib.sha256()
        try:
            with path.open("rb") as file:
                while piece := file.read(_READ_BYTES):
                    sha256.update(piece)
        except OSError as error:
            raise CorruptSnapshotError(f"{path}: {error}") from error
        if sha256.hexdigest() != ref.sha256:
            raise CorruptSnapshotError(f"{path}: sha256 {sha256.hexdigest()}, expected {ref.sha256}")

    def make_durable(self, refs: list[SnapshotRef]) -> None:
        """Flush files to the disk, before a checkpoint that needs them is."""
        for ref in refs:
            path = self.path(ref.lane, ref.seq)
            flush_to_disk(path)
            flush_to_disk(path.parent)

    def remove(self, lane: int, seq: int) -> None:
        """Delete a file, if it is there."""
        self.path(lane, seq).unlink(missing_ok=True)

    def stored(self) -> Iterator[tuple[int, int]]:
        """Return `(lane, seq)` of every file."""
        for path in sorted(self._directory.glob("*/seq-*.safetensors")):
            yield int(path.parent.name), int(path.stem.removeprefix("seq-"))

    def remove_partial(self) -> None:
        """Delete what earlier learners had only begun to write, so that none of them can finish it."""
        remove_partial(self._directory)


class SnapshotReceiver:
    """One snapshot on its way in."""

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
        """Whether every byte has come."""
        return self._received == self._size

    def add(self, chunk: Chunk) -> None:
        """Write the next chunk.

        Raises:
            CodecError: it does not continue the file; the receiver is of no further use.
            OSError: the disk refused; likewise.
        """
        codec.check_chunk(chunk, self._transfer, self._received, self._size)
        self._file.write(chunk.data)
        self._sha256.update(chunk.data)
        self._received += len(chunk.data)

    def commit(self) -> None:
        """Give the whole file its name.

        Raises:
            CorruptSnapshotError: its digest is not the one announced; nothing is kept.
            FencedError: the directory is another learner's now.
            OSError: the disk refused.
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
        """Drop what has come."""
        with contextlib.suppress(OSError):  # a full disk refuses what is still in the file's buffer
            self._file.close()
        Path(self._file.name).unlink(missing_ok=True)
