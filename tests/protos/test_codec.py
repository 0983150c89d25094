import contextlib
import zlib
from typing import Any

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from protos import codec
from protos.unspool.v1.common_pb2 import Chunk

SHAPES = npst.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)
DTYPES = st.sampled_from(sorted(codec.DTYPES))


@st.composite
def arrays(draw: st.DrawFn) -> np.ndarray[Any, Any]:
    dtype, shape = codec.DTYPES[draw(DTYPES)], draw(SHAPES)
    size = int(np.prod(shape)) * dtype.itemsize
    data = draw(st.binary(min_size=size, max_size=size))
    if dtype == np.bool_:
        data = bytes(byte % 2 for byte in data)
    return np.frombuffer(data, dtype).reshape(shape)


def trees() -> st.SearchStrategy[Any]:
    names = st.text("abc", min_size=1, max_size=2)
    return st.recursive(
        arrays(),
        lambda inner: st.lists(inner, max_size=3).map(tuple) | st.dictionaries(names, inner, max_size=3),
        max_leaves=6,
    )


def same_bytes(left: Any, right: Any) -> bool:
    pairs = zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True)
    return all((a.dtype, a.shape, a.tobytes()) == (b.dtype, b.shape, b.tobytes()) for a, b in pairs)


@given(tree=trees())
def test_every_tree_survives_the_wire(tree: Any) -> None:
    schema = codec.schema_of(tree)
    back = codec.decode_tree(codec.encode(tree, schema), schema, jax.tree.structure(tree))
    assert jax.tree.structure(back) == jax.tree.structure(tree)
    assert same_bytes(back, tree)


@given(tree=trees())
def test_the_schema_knows_the_size_of_the_body(tree: Any) -> None:
    schema = codec.schema_of(tree)
    assert codec.body_bytes(schema) == len(codec.encode(tree, schema))


@given(tree=trees(), chunk_bytes=st.integers(1, 50))
def test_every_body_survives_being_cut_into_chunks(tree: Any, chunk_bytes: int) -> None:
    schema = codec.schema_of(tree)
    body = codec.encode(tree, schema)
    assembler = codec.Assembler(transfer=3, size=codec.body_bytes(schema))
    for chunk in codec.chunks(body, 3, chunk_bytes):
        assert len(chunk.data) <= chunk_bytes
        assembler.add(Chunk.FromString(chunk.SerializeToString()))
    assert assembler.body() == body


@given(tree=trees(), data=st.binary(max_size=200))
def test_bytes_that_are_no_body_are_refused_and_nothing_else(tree: Any, data: bytes) -> None:
    schema = codec.schema_of(tree)
    try:
        leaves = codec.decode(data, schema)
    except codec.CodecError:
        return
    assert len(data) == codec.body_bytes(schema)
    assert sum(leaf.nbytes for leaf in leaves) == len(data)


@given(
    chunks=st.lists(
        st.builds(
            lambda transfer, offset, data, broken: Chunk(
                transfer=transfer, offset=offset, data=data, crc32=zlib.crc32(data) ^ broken
            ),
            transfer=st.integers(0, 1),
            offset=st.integers(0, 2**64 - 1) | st.integers(0, 12),
            data=st.binary(max_size=8),
            broken=st.integers(0, 1),
        ),
        max_size=6,
    )
)
def test_an_assembler_meets_any_chunks_with_typed_errors(chunks: list[Chunk]) -> None:
    assembler = codec.Assembler(transfer=1, size=10)
    taken = 0
    for chunk in chunks:
        with contextlib.suppress(codec.CodecError):
            assembler.add(chunk)
            taken += len(chunk.data)
    assert taken <= 10
    assert assembler.complete == (taken == 10)


def one_chunk(**changes: Any) -> Chunk:
    values: dict[str, Any] = {"transfer": 1, "offset": 0, "data": b"abcd", "crc32": zlib.crc32(b"abcd")}
    return Chunk(**(values | changes))


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"transfer": 2}, codec.OutOfOrderError),
        ({"offset": 1}, codec.OutOfOrderError),
        ({"offset": 2**64 - 1}, codec.OutOfOrderError),
        ({"data": b""}, codec.OutOfOrderError),
        ({"data": b"abcdefghi"}, codec.TooLargeError),
        ({"crc32": 1}, codec.CorruptBodyError),
    ],
    ids=str,
)
def test_a_chunk_that_does_not_continue_its_body_is_refused(
    changes: dict[str, Any], error: type[codec.CodecError]
) -> None:
    with pytest.raises(error):
        codec.Assembler(transfer=1, size=8).add(one_chunk(**changes))


def test_an_incomplete_body_is_not_given_out() -> None:
    assembler = codec.Assembler(transfer=1, size=8)
    assembler.add(one_chunk())
    with pytest.raises(codec.OutOfOrderError, match="4 of 8 bytes"):
        assembler.body()


def test_memory_is_allocated_by_the_receivers_size_and_not_by_the_messages() -> None:
    # An offset or a length field of a message is compared, never used as a size.
    assembler = codec.Assembler(transfer=1, size=8)
    with pytest.raises(codec.OutOfOrderError):
        assembler.add(one_chunk(offset=2**63))
    assert len(assembler._buffer) == 8


def test_decoded_leaves_are_views_and_cannot_be_written() -> None:
    schema = codec.schema_of(np.zeros(4, np.float32))
    body = codec.encode(np.ones(4, np.float32), schema)
    (leaf,) = codec.decode(body, schema)
    assert np.shares_memory(leaf, np.frombuffer(body, np.uint8))
    assert not leaf.flags.writeable


@pytest.mark.parametrize(
    ("tree", "named"),
    [
        ({"a": np.zeros(2, np.float64)}, r"leaf \['a'\]: float64\[2\], the schema has float32\[2\]"),
        ({"a": np.zeros(3, np.float32)}, r"leaf \['a'\]: float32\[3\]"),
        ({}, "0 leaves, the schema 1"),
    ],
    ids=["dtype", "shape", "leaves"],
)
def test_a_tree_of_another_schema_is_not_sent(tree: Any, named: str) -> None:
    schema = codec.schema_of({"a": np.zeros(2, np.float32)})
    with pytest.raises(codec.SchemaMismatchError, match=named):
        codec.encode(tree, schema)


def test_a_treedef_of_another_size_is_refused() -> None:
    schema = codec.schema_of(np.zeros(2, np.float32))
    with pytest.raises(codec.SchemaMismatchError, match="2 leaves: the schema has 1"):
        codec.decode_tree(bytes(8), schema, jax.tree.structure((1, 2)))


def test_a_bool_that_is_neither_true_nor_false_is_refused() -> None:
    schema = codec.schema_of(np.zeros(2, bool))
    with pytest.raises(codec.CorruptBodyError, match="neither 0 nor 1"):
        codec.decode(b"\x00\x02", schema)


@pytest.mark.parametrize("leaf", [np.zeros(1, np.complex64), np.array(["text"])], ids=["complex", "text"])
def test_a_dtype_that_does_not_travel_is_named(leaf: Any) -> None:
    with pytest.raises(codec.SchemaMismatchError, match=r"leaf \['x'\]: dtype .* cannot be sent"):
        codec.schema_of({"x": leaf})


def test_schemas_of_abstract_and_concrete_trees_agree() -> None:
    concrete = {"a": np.zeros((2, 3), np.float32), "b": np.zeros((), np.int32)}
    abstract = jax.eval_shape(lambda: jax.tree.map(jax.numpy.asarray, concrete))
    assert codec.schema_of(abstract) == codec.schema_of(concrete)


def test_a_damaged_body_is_found_by_its_sum() -> None:
    wrapped = codec.tensors(b"abcd", transfer=1, chunk_bytes=10)
    codec.check_body(wrapped.inline, wrapped.crc32)
    with pytest.raises(codec.CorruptBodyError, match="crc32"):
        codec.check_body(b"abce", wrapped.crc32)


@pytest.mark.parametrize(("chunk_bytes", "carrier"), [(4, "inline"), (3, "transfer")])
def test_a_body_travels_inline_where_one_chunk_would_do(chunk_bytes: int, carrier: str) -> None:
    assert codec.tensors(b"abcd", 1, chunk_bytes).WhichOneof("body") == carrier


def test_chunks_of_no_size_are_refused() -> None:
    with pytest.raises(ValueError, match="chunk_bytes=0"):
        next(codec.chunks(b"abcd", 1, 0))
