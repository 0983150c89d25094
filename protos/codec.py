"""The single place where bytes meet arrays: pytrees to and from what the messages carry.

A body is the raw little-endian bytes of a schema's leaves, one after another in canonical order. The schema
is agreed before any body is read, and every size comes from it (or from the receiver's own limit), never from
the message at hand: a hostile or broken peer can make a receiver refuse, not allocate.
"""

import hashlib
import json
import math
import zlib
from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, Final, TypeAlias

import jax
import numpy as np
from numpy.typing import NDArray

from protos.unspool.v1.common_pb2 import Chunk, Leaf, Schema, Tensors

Buffer: TypeAlias = bytes | bytearray | memoryview
Array: TypeAlias = NDArray[Any]
TreeDef: TypeAlias = Any  # jax.tree_util.PyTreeDef, which is no type to a type checker

DTYPES: Final[Mapping[str, np.dtype[Any]]] = MappingProxyType(
    {
        name: jax.numpy.dtype(name)
        for name in (
            "float32", "float16", "bfloat16", "float64",
            "int8", "int16", "int32", "int64",
            "uint8", "uint16", "uint32", "uint64",
            "bool",
        )
    }
)  # fmt: skip
"""The dtypes that may travel. Every platform JAX runs on is little-endian, as the wire is."""


class CodecError(ValueError):
    """A body, or a tree to be sent, is not what the schema says."""


class SchemaMismatchError(CodecError):
    """Shapes, dtypes or sizes disagree with the schema."""


class CorruptBodyError(CodecError):
    """The bytes are not those that were sent."""


class TooLargeError(CodecError):
    """More bytes than the receiver has room for; they were not kept."""


class OutOfOrderError(CodecError):
    """A chunk that does not continue its body."""


def schema_of(tree: Any) -> Schema:
    """Describe `tree` (arrays or `jax.ShapeDtypeStruct`s) as the schema its bodies are read against.

    Raises:
        SchemaMismatchError: a leaf has a dtype that does not travel.
    """
    flat, _ = jax.tree_util.tree_flatten_with_path(tree)
    leaves = [_describe(jax.tree_util.keystr(path), leaf) for path, leaf in flat]
    return Schema(leaves=leaves, sha256=_schema_sha256(leaves))


def body_bytes(schema: Schema) -> int:
    """Return the exact size of a body of `schema`."""
    return sum(_leaf_bytes(leaf) for leaf in schema.leaves)


def encode(tree: Any, schema: Schema) -> bytes:
    """Return the body of `tree`: its leaves' raw bytes in canonical order. Nothing is cast.

    Raises:
        SchemaMismatchError: naming the first leaf that disagrees with the schema.
    """
    leaves = jax.tree.leaves(tree)
    if len(leaves) != len(schema.leaves):
        raise SchemaMismatchError(f"tree has {len(leaves)} leaves, the schema {len(schema.leaves)}")
    return b"".join(_leaf_body(leaf, like) for leaf, like in zip(leaves, schema.leaves, strict=True))


def decode(data: Buffer, schema: Schema) -> list[Array]:
    """Return the leaves of a body as read-only views of `data`, which stays alive with them.

    Raises:
        TooLargeError: `data` is longer than the schema's body.
        SchemaMismatchError: it is shorter.
        CorruptBodyError: a bool leaf holds a byte that is neither 0 nor 1.
    """
    expected = body_bytes(schema)
    if len(data) > expected:
        raise TooLargeError(f"body of {len(data)} bytes: the schema's has {expected}")
    if len(data) < expected:
        raise SchemaMismatchError(f"body of {len(data)} bytes: the schema's has {expected}")
    view = memoryview(data).toreadonly()
    leaves, offset = [], 0
    for leaf in schema.leaves:
        size = _leaf_bytes(leaf)
        leaves.append(_leaf_view(view[offset : offset + size], leaf))
        offset += size
    return leaves


def decode_tree(data: Buffer, schema: Schema, treedef: TreeDef) -> Any:
    """Return the tree of a body; `treedef` is the receiver's own, since structure never travels.

    Raises:
        CodecError: as `decode`; `SchemaMismatchError` also where `treedef` has another number of leaves.
    """
    if treedef.num_leaves != len(schema.leaves):
        raise SchemaMismatchError(f"tree of {treedef.num_leaves} leaves: the schema has {len(schema.leaves)}")
    return jax.tree.unflatten(treedef, decode(data, schema))


def tensors(body: bytes, transfer: int, chunk_bytes: int) -> Tensors:
    """Wrap a body for a message: inline where one chunk would do, else a reference to `transfer`'s chunks.

    The checksum is an inline body's. Chunks have their own, and come in order and complete or not at all:
    another pass over a large body, at either end, would find nothing that those do not.
    """
    if len(body) <= chunk_bytes:
        return Tensors(inline=body, crc32=zlib.crc32(body))
    return Tensors(transfer=transfer)


def check_body(data: Buffer, crc32: int) -> None:
    """Refuse a whole body whose CRC-32 is not the one its sender stated.

    Raises:
        CorruptBodyError: with both sums.
    """
    if zlib.crc32(data) != crc32:
        raise CorruptBodyError(
            f"body of {len(data)} bytes: crc32 {zlib.crc32(data):#010x}, sent as {crc32:#010x}"
        )


def chunks(body: Buffer, transfer: int, chunk_bytes: int) -> Iterator[Chunk]:
    """Cut a body into the messages that carry it, in order. An empty body has none."""
    if chunk_bytes < 1:
        raise ValueError(f"chunks(chunk_bytes={chunk_bytes}): must be positive")
    view = memoryview(body)
    for offset in range(0, len(view), chunk_bytes):
        piece = bytes(view[offset : offset + chunk_bytes])
        yield Chunk(transfer=transfer, offset=offset, data=piece, crc32=zlib.crc32(piece))


def check_chunk(chunk: Chunk, transfer: int, received: int, size: int) -> bytes:
    """Return a chunk's bytes; refuse one that does not continue a body of `size`, of which `received` came.

    Raises:
        OutOfOrderError: it belongs to another transfer, starts elsewhere or carries nothing.
        TooLargeError: it reaches beyond the body.
        CorruptBodyError: its CRC-32 is wrong.
    """
    data: bytes = chunk.data  # once: protobuf makes another copy each time that it is asked
    where = f"Chunk(transfer={chunk.transfer}, offset={chunk.offset}, {len(data)} bytes)"
    if chunk.transfer != transfer or chunk.offset != received or not data:
        raise OutOfOrderError(f"{where}: expected transfer {transfer} at offset {received}")
    if received + len(data) > size:
        raise TooLargeError(f"{where}: the body has {size} bytes")
    if zlib.crc32(data) != chunk.crc32:
        raise CorruptBodyError(f"{where}: crc32 does not match")
    return data


class Assembler:
    """Puts a chunked body together in one buffer, allocated once from the size the receiver knows.

    After an error the transfer is dead: its sender starts the whole body again.
    """

    def __init__(self, transfer: int, size: int) -> None:
        self.transfer = transfer
        # Not zeroed: for a large body that would cost as much as a copy, and `body` is whole or an error.
        self._buffer = np.empty(size, np.uint8).data
        self._received = 0

    @property
    def complete(self) -> bool:
        """Whether every byte has come; an empty body is complete from the start."""
        return self._received == len(self._buffer)

    def add(self, chunk: Chunk) -> None:
        """Take the next chunk.

        Raises:
            CodecError: as `check_chunk`.
        """
        data = check_chunk(chunk, self.transfer, self._received, len(self._buffer))
        self._buffer[self._received : self._received + len(data)] = data
        self._received += len(data)

    def body(self) -> memoryview:
        """Return the body.

        Raises:
            OutOfOrderError: chunks are still missing.
        """
        if not self.complete:
            raise OutOfOrderError(
                f"transfer {self.transfer}: {self._received} of {len(self._buffer)} bytes came"
            )
        return self._buffer.toreadonly()


def _describe(path: str, leaf: Any) -> Leaf:
    array = leaf if hasattr(leaf, "dtype") else np.asarray(leaf)
    described = Leaf(path=path, dtype=str(array.dtype), shape=array.shape)
    _dtype(described)
    return described


def _schema_sha256(leaves: Iterable[Leaf]) -> str:
    # Not protobuf's own bytes: those are promised to be the same only within one version of it.
    text = json.dumps([[leaf.path, leaf.dtype, list(leaf.shape)] for leaf in leaves], separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _dtype(leaf: Leaf) -> np.dtype[Any]:
    if leaf.dtype not in DTYPES:
        raise SchemaMismatchError(
            f"leaf {leaf.path or '.'}: dtype {leaf.dtype} does not travel; use one of {', '.join(DTYPES)}"
        )
    return DTYPES[leaf.dtype]


def _leaf_bytes(leaf: Leaf) -> int:
    return math.prod(tuple[int, ...](leaf.shape)) * _dtype(leaf).itemsize


def _leaf_body(leaf: Any, like: Leaf) -> bytes:
    array = np.asarray(leaf)
    if str(array.dtype) != like.dtype or array.shape != tuple(like.shape):
        raise SchemaMismatchError(
            f"leaf {like.path or '.'}: {array.dtype}{list(array.shape)}, "
            f"the schema has {like.dtype}{list(like.shape)}"
        )
    return array.tobytes()


def _leaf_view(data: memoryview, leaf: Leaf) -> Array:
    dtype = _dtype(leaf)
    if dtype == np.bool_ and np.frombuffer(data, np.uint8).max(initial=0) > 1:
        raise CorruptBodyError(f"leaf {leaf.path or '.'}: a bool that is neither 0 nor 1")
    return np.frombuffer(data, dtype).reshape(tuple(leaf.shape))
