"""A push whose gradient follows in chunks."""

from protos import codec
from protos.unspool.v1.common_pb2 import Chunk
from protos.unspool.v1.learner_pb2 import GradientEstimatorOut


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
