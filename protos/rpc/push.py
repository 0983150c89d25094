"""The gradient of a push as it arrives: put together from chunks, and read against the schema."""

from typing import Final

from protos import codec
from protos.unspool.v1 import learner_pb2
from protos.unspool.v1.common_pb2 import Chunk, Schema
from protos.unspool.v1.learner_pb2 import GradientEstimatorOut

_VERDICTS: Final = {
    codec.TooLargeError: learner_pb2.TOO_LARGE,
    codec.SchemaMismatchError: learner_pb2.SCHEMA_MISMATCH,
}


class IncomingPush:
    """Its announcement, and what has come of its body; the schema bounds what it may hold."""

    def __init__(self, push: GradientEstimatorOut, body_bytes: int) -> None:
        """Wait for the `body_bytes` of the transfer that `push` names."""
        self.push = push
        self._assembler = codec.Assembler(push.grad.transfer, body_bytes)

    def is_continued_by(self, chunk: Chunk) -> bool:
        """Whether a chunk belongs to it."""
        return bool(chunk.transfer == self._assembler.transfer)

    def add(self, chunk: Chunk) -> codec.Buffer | codec.CodecError | None:
        """Take the next chunk; returns the body if that was the last, or why there will never be one."""
        try:
            self._assembler.add(chunk)
        except codec.CodecError as error:
            return error
        return self._assembler.body() if self._assembler.complete else None


def leaves_of(body: codec.Buffer, crc32: int | None, schema: Schema) -> list[codec.Array]:
    """Return a gradient's leaves; `crc32` is None where it came in chunks, which have their own.

    Raises:
        CodecError: it is not what the schema says, or not what was sent.
    """
    leaves = codec.decode(body, schema)
    if crc32 is not None:
        codec.check_body(body, crc32)
    return leaves


def verdict_on(error: codec.CodecError) -> learner_pb2.Verdict:
    """Return what the sender of a gradient that cannot be read is told."""
    return _VERDICTS.get(type(error), learner_pb2.CORRUPT)
