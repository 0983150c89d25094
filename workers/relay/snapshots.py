"""The snapshots that a relay receives from its workers and forwards."""

from collections.abc import Callable
from typing import Final

from protos import codec
from protos.rpc.session_host import IncomingSnapshot
from protos.unspool.v1 import learner_pb2
from protos.unspool.v1.common_pb2 import Chunk

MAX_SNAPSHOT_BYTES: Final = 1 << 30
"""Maximum size of one lane's unroll state. The learner's own limit may be lower."""


class SnapshotInMemory(IncomingSnapshot):
    """A snapshot assembled in memory, which grows with the received data, not with the announced size."""

    def __init__(self, snapshot: learner_pb2.Snapshot, forward: Callable[[bytes], None]) -> None:
        """Pass the body of `snapshot` to `forward` when it is complete."""
        self._snapshot = snapshot
        self._forward = forward
        self._body = bytearray()

    def add(self, chunk: Chunk) -> bool:
        try:
            codec.check_chunk(chunk, self._snapshot.transfer, len(self._body), self._snapshot.bytes)
        except codec.CodecError:
            return True  # the worker sends another snapshot later
        self._body += chunk.data
        if len(self._body) < self._snapshot.bytes:
            return False
        self._forward(bytes(self._body))
        return True

    def abort(self) -> None:
        self._body.clear()
