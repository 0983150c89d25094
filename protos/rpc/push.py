"""A push and its gradient as they arrive at a learner or a relay."""

from collections.abc import Sequence
from typing import Final

from protos import codec
from protos.unspool.v1 import learner_pb2
from protos.unspool.v1.common_pb2 import Chunk, Schema
from protos.unspool.v1.learner_pb2 import GradientEstimatorOut, Part

_VERDICTS: Final = {
    codec.TooLargeError: learner_pb2.TOO_LARGE,
    codec.SchemaMismatchError: learner_pb2.SCHEMA_MISMATCH,
}


class IncomingPush:
    """A push whose body arrives in chunks. The schema bounds what is held."""

    def __init__(self, push: GradientEstimatorOut, body_bytes: int) -> None:
        """Wait for the `body_bytes` of the transfer that `push` names."""
        self.push = push
        self._assembler = codec.Assembler(push.grad.transfer, body_bytes)

    def is_continued_by(self, chunk: Chunk) -> bool:
        """Whether a chunk belongs to it."""
        return bool(chunk.transfer == self._assembler.transfer)

    def add(self, chunk: Chunk) -> codec.Buffer | codec.CodecError | None:
        """Take the next chunk; return the body if that was the last, or the error that ends the transfer."""
        try:
            self._assembler.add(chunk)
        except codec.CodecError as error:
            return error
        return self._assembler.body() if self._assembler.complete else None


def checksum_of(push: GradientEstimatorOut) -> int | None:
    """Return the checksum of a push's inline gradient; None if it comes in chunks, which have their own."""
    return None if push.grad.WhichOneof("body") == "transfer" else int(push.grad.crc32)


def leaves_of(body: codec.Buffer, crc32: int | None, schema: Schema) -> list[codec.Array]:
    """Return the leaves of a gradient, after checking it against `crc32` unless that is None.

    Raises:
        CodecError: the body does not match the schema, or is not what was sent.
    """
    leaves = codec.decode(body, schema)
    if crc32 is not None:
        codec.check_body(body, crc32)
    return leaves


def verdict_on(error: codec.CodecError) -> learner_pb2.Verdict:
    """Return the verdict on a push whose gradient cannot be read."""
    return _VERDICTS.get(type(error), learner_pb2.CORRUPT)


def parts_of(push: GradientEstimatorOut) -> Sequence[Part]:
    """Return the estimates in a push: those that a relay has merged, or the push itself as the only one."""
    return push.parts or [
        Part(
            lane=push.lane,
            incarnation=push.incarnation,
            seq=push.seq,
            theta_version=push.theta_version,
            weight=push.weight,
            mean_loss=push.mean_loss,
            unroll_info=push.unroll_info,
            compute_s=push.compute_s,
        )
    ]
