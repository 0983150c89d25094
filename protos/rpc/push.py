"""Reading pushes and their gradients, for learner and relay."""

from collections.abc import Sequence
from typing import Final

from protos import codec
from protos.unspool.v1 import learner_pb2
from protos.unspool.v1.common_pb2 import Schema
from protos.unspool.v1.learner_pb2 import GradientEstimatorOut, Part

_VERDICTS: Final = {
    codec.TooLargeError: learner_pb2.TOO_LARGE,
    codec.SchemaMismatchError: learner_pb2.SCHEMA_MISMATCH,
}

SENT_AGAIN: Final = frozenset({learner_pb2.NO_CREDIT, learner_pb2.CORRUPT})
"""Verdicts after which the learner still wants the same push, and an outbox resends it by itself."""


def checksum_of(push: GradientEstimatorOut) -> int | None:
    """Return the CRC-32 of a push's inline gradient; None if it is sent in chunks, which have their own."""
    return None if push.grad.WhichOneof("body") == "transfer" else int(push.grad.crc32)


def leaves_of(body: codec.Buffer, crc32: int | None, schema: Schema) -> list[codec.Array]:
    """Return the leaves of a gradient, after checking it against `crc32` unless that is None.

    Raises:
        CodecError: the body does not match the schema or the checksum.
    """
    leaves = codec.decode(body, schema)
    if crc32 is not None:
        codec.check_body(body, crc32)
    return leaves


def verdict_on(error: codec.CodecError) -> learner_pb2.Verdict:
    """Return the verdict on a push whose gradient cannot be read."""
    return _VERDICTS.get(type(error), learner_pb2.CORRUPT)


def parts_of(push: GradientEstimatorOut) -> Sequence[Part]:
    """Return the estimates in a push: the parts that a relay has merged, or the push itself as one part."""
    return push.parts or [
        Part(
            lane=push.lane,
            fencing_token=push.fencing_token,
            seq=push.seq,
            outer_step=push.outer_step,
            weight=push.weight,
            mean_loss=push.mean_loss,
            unroll_info=push.unroll_info,
            compute_s=push.compute_s,
        )
    ]
