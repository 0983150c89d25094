"""The codec: conversion of pytrees to and from the bodies of messages.

A body is the concatenation of the raw little-endian bytes of a schema's leaves in canonical order. The schema
is agreed on before any body is read. Every size is derived from the schema or from the receiver's own limit,
never from a message, so that a hostile or broken peer cannot cause large allocations.
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
TreeDef: TypeAlias = Any  # jax.tree_util.PyTreeDef, which type checkers do not accept as a type

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
"""The supported dtypes. The wire format is little-endian, as is every platform that JAX runs on."""


class CodecError(ValueError):
    """Base of the errors for bodies and trees that do not match the schema."""


class SchemaMismatchError(CodecError):
    """Raised if shapes, dtypes or sizes differ from the schema."""


class CorruptBodyError(CodecError):
    """Raised if the bytes differ from those that were sent."""


class TooLargeError(CodecError):
    """Raised for more bytes than the receiver allows; they are discarded."""


class OutOfOrderError(CodecError):
    """Raised for a chunk that does not continue its body, or for an incomplete body."""


def schema_of(tree: Any) -> Schema:
    """Return the schema of `tree`, a pytree of arrays or `jax.ShapeDtypeStruct`s.

    Raises:
        SchemaMismatchError: a leaf has an unsupported dtype.
    """
    flat, _ = jax.tree_util.tree_flatten_with_path(tree)
    leaves = [_describe(jax.tree_util.keystr(path), leaf) for path, leaf in flat]
    return Schema(leaves=leaves, sha256=_schema_sha256(leaves))


def body_bytes(schema: Schema) -> int:
    """Return the exact size of a body of `schema` in bytes."""
    return sum(_leaf_bytes(leaf) for leaf in schema.leaves)


def encode(tree: Any, schema: Schema) -> bytes:
    """Return the body of `tree`: the raw bytes of its leaves in canonical order, without any cast.

    Raises:
        SchemaMismatchError: a leaf differs from the schema; the error contains the first such leaf.
    """
    leaves = jax.tree.leaves(tree)
    if len(leaves) != len(schema.leaves):
        raise SchemaMismatchError(f"tree has {len(leaves)} leaves, the schema {len(schema.leaves)}")
    return b"".join(_leaf_body(leaf, like) for leaf, like in zip(leaves, schema.leaves, strict=True))


def decode(data: Buffer, schema: Schema) -> list[Array]:
    """Return the leaves of a body as read-only views of `data`; they keep `data` in memory.

    Raises:
        TooLargeError: `data` is longer than the schema's body.
        SchemaMismatchError: `data` is shorter than the schema's body.
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
    """Return the tree of a body; `treedef` is the receiver's own, because bodies do not contain structure.

    Raises:
        CodecError: as `decode`; `SchemaMismatchError` also if `treedef` has a different number of leaves.
    """
    if treedef.num_leaves != len(schema.leaves):
        raise SchemaMismatchError(f"tree of {treedef.num_leaves} leaves: the schema has {len(schema.leaves)}")
    return jax.tree.unflatten(treedef, decode(data, schema))


def tensors(body: bytes, transfer: int, chunk_bytes: int) -> Tensors:
    """Wrap a body for a message: inline if it fits into one chunk, else a reference to `transfer`'s chunks.

    Only an inline body gets a checksum here. Chunks have their own checksums and arrive in order and complete
    or not at all, so a checksum over a whole large body would cost time at both ends and detect nothing more.
    """
    if len(body) <= chunk_bytes:
        return Tensors(inline=body, crc32=zlib.crc32(body))
    return Tensors(transfer=transfer)


def check_body(data: Buffer, crc32: int) -> None:
    """Check the CRC-32 of a complete body.

    Raises:
        CorruptBodyError: the checksum differs from `crc32`; the error contains both.
    """
    if zlib.crc32(data) != crc32:
        raise CorruptBodyError(
            f"body of {len(data)} bytes: crc32 {zlib.crc32(data):#010x}, sent as {crc32:#010x}"
        )


def chunks(body: Buffer, transfer: int, chunk_bytes: int) -> Iterator[Chunk]:
    """Yield a body as chunks of up to `chunk_bytes`, in order; none for an empty body."""
    if chunk_bytes < 1:
        raise ValueError(f"chunks(chunk_bytes={chunk_bytes}): must be positive")
    view = memoryview(body)
    for offset in range(0, len(view), chunk_bytes):
        piece = bytes(view[offset : offset + chunk_bytes])
        yield Chunk(transfer=transfer, offset=offset, data=piece, crc32=zlib.crc32(piece))


def check_chunk(chunk: Chunk, transfer: int, received: int, size: int) -> bytes:
    """Return a chunk's bytes after checking that it continues a body of `size` bytes at offset `received`.

    Raises:
        OutOfOrderError: the chunk belongs to another transfer, has another offset, or is empty.
        TooLargeError: the chunk extends beyond the body.
        CorruptBodyError: the chunk's CRC-32 does not match.
    """
    data: bytes = chunk.data  # read once, because protobuf copies the bytes on each access
    where = f"Chunk(transfer={chunk.transfer}, offset={chunk.offset}, {len(data)} bytes)"
    if chunk.transfer != transfer or chunk.offset != received or not data:
        raise OutOfOrderError(f"{where}: expected transfer {transfer} at offset {received}")
    if received + len(data) > size:
        raise TooLargeError(f"{where}: the body has {size} bytes")
    if zlib.crc32(data) != chunk.crc32:
        raise CorruptBodyError(f"{where}: crc32 does not match")
    return data


class Assembler:
    """Assembles a chunked body in one buffer, allocated once with the size that the receiver expects.

    After an error, the sender must restart the transfer.
    """

    def __init__(self, transfer: int, size: int) -> None:
        self.transfer = transfer
        # Not zeroed, which would cost as much as a copy; `body` returns only a completely written buffer.
        self._buffer = np.empty(size, np.uint8).data
        self._received = 0

    @property
    def complete(self) -> bool:
        """Whether every byte has been received; an empty body is complete from the start."""
        return self._received == len(self._buffer)

    def add(self, chunk: Chunk) -> None:
        """Append the next chunk.

        Raises:
            CodecError: as `check_chunk`.
        """
        data = check_chunk(chunk, self.transfer, self._received, len(self._buffer))
        self._buffer[self._received : self._received + len(data)] = data
        self._received += len(data)

    def body(self) -> memoryview:
        """Return the body.

        Raises:
            OutOfOrderError: the body is incomplete.
        """
        if not self.complete:
            raise OutOfOrderError(
                f"transfer {self.transfer}: {self._received} of {len(self._buffer)} bytes were received"
            )
        return self._buffer.toreadonly()


def _describe(path: str, leaf: Any) -> Leaf:
    array = leaf if hasattr(leaf, "dtype") else np.asarray(leaf)
    described = Leaf(path=path, dtype=str(array.dtype), shape=array.shape)
    _dtype(described)
    return described


def _schema_sha256(leaves: Iterable[Leaf]) -> str:
    # Do not hash protobuf's serialization, which is not guaranteed to be stable across protobuf versions.
    text = json.dumps([[leaf.path, leaf.dtype, list(leaf.shape)] for leaf in leaves], separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _dtype(leaf: Leaf) -> np.dtype[Any]:
    if leaf.dtype not in DTYPES:
        raise SchemaMismatchError(
            f"leaf {leaf.path or '.'}: dtype {leaf.dtype} cannot be sent; use one of {', '.join(DTYPES)}"
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
