import numpy as np
import pytest

from protos import codec
from protos.rpc.push import checksum_of, leaves_of, parts_of, verdict_on
from protos.unspool.v1 import learner_pb2
from protos.unspool.v1.learner_pb2 import GradientEstimatorOut, Part

TREE = [np.arange(3, dtype=np.float32)]
SCHEMA = codec.schema_of(TREE)
BODY = codec.encode(TREE, SCHEMA)


def test_an_inline_gradient_has_a_checksum_and_one_in_chunks_has_none() -> None:
    inline = GradientEstimatorOut(grad=codec.tensors(BODY, 1, chunk_bytes=100))
    chunked = GradientEstimatorOut(grad=codec.tensors(BODY, 1, chunk_bytes=4))
    assert checksum_of(inline) == inline.grad.crc32
    assert checksum_of(chunked) is None


def test_leaves_are_checked_against_schema_and_checksum() -> None:
    crc32 = codec.tensors(BODY, 1, chunk_bytes=100).crc32
    np.testing.assert_array_equal(leaves_of(BODY, crc32, SCHEMA)[0], TREE[0])
    with pytest.raises(codec.CorruptBodyError):
        leaves_of(BODY, crc32 ^ 1, SCHEMA)
    with pytest.raises(codec.SchemaMismatchError):
        leaves_of(BODY[:-1], None, SCHEMA)


@pytest.mark.parametrize(
    ("error", "verdict"),
    [
        (codec.TooLargeError(""), learner_pb2.TOO_LARGE),
        (codec.SchemaMismatchError(""), learner_pb2.SCHEMA_MISMATCH),
        (codec.CorruptBodyError(""), learner_pb2.CORRUPT),
        (codec.OutOfOrderError(""), learner_pb2.CORRUPT),
    ],
)
def test_an_unreadable_gradient_gets_the_verdict_of_its_error(
    error: codec.CodecError, verdict: learner_pb2.Verdict
) -> None:
    assert verdict_on(error) == verdict


def test_a_push_of_one_estimate_is_its_only_part() -> None:
    push = GradientEstimatorOut(
        lane=1, fencing_token=2, seq=3, outer_step=4, weight=0.5, mean_loss=6.0, compute_s=7.0
    )
    expected = Part(lane=1, fencing_token=2, seq=3, outer_step=4, weight=0.5, mean_loss=6.0, compute_s=7.0)
    expected.unroll_info.SetInParent()
    assert list(parts_of(push)) == [expected]


def test_a_merged_push_has_the_parts_that_it_lists() -> None:
    parts = [Part(lane=1, seq=2), Part(lane=3, seq=4)]
    assert list(parts_of(GradientEstimatorOut(lane=9, parts=parts))) == parts
