"""Pytrees of arrays as safetensors bytes, and digests for equality checks.

Files hold arrays and text only, so reading an untrusted file runs no code. The tree structure is not stored:
the reader passes the expected tree (`like`), and every mismatch is an error that names the leaf. The
safetensors library implements the format; this module adds the parts for pytrees: paths as names, typed PRNG
keys, Python scalars.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any, Final, NamedTuple, TypeAlias, TypeVar

import jax
import numpy as np
import safetensors
from numpy.typing import NDArray
from safetensors.numpy import save as save_safetensors

Array: TypeAlias = NDArray[Any]
Tree = TypeVar("Tree")

# All metadata is in one entry: safetensors writes several entries in an order that varies between processes,
# and equal trees must have equal bytes.
_ENTRY: Final = "unspool"
_LENGTH_BYTES: Final = 8  # safetensors: a little-endian length, a JSON header of that length, the arrays

_DTYPES: Final[Mapping[str, str]] = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16",
    "I64": "int64", "I32": "int32", "I16": "int16", "I8": "int8",
    "U64": "uint64", "U32": "uint32", "U16": "uint16", "U8": "uint8",
    "BOOL": "bool",
}  # fmt: skip


class SerializationError(ValueError):
    """A tree that cannot be written, or bytes that do not match the expected tree."""


def to_bytes(tree: Any, metadata: Mapping[str, str]) -> bytes:
    """Return `tree` and `metadata` as one safetensors file, each leaf under its `keystr`.

    Typed PRNG keys are stored as their key data. Equal arguments give equal bytes.

    Raises:
        SerializationError: a leaf is not an array of a dtype that the format supports.
    """
    named = _named_leaves(tree)
    arrays = {name: _stored(name, leaf) for name, leaf in named.items()}
    header = {
        "metadata": dict(metadata),
        "prng_keys": {name: str(jax.random.key_impl(leaf)) for name, leaf in named.items() if _is_key(leaf)},
    }
    return save_safetensors(arrays, {_ENTRY: json.dumps(header, sort_keys=True)})


def from_bytes(data: bytes, like: Tree, *, partial: bool = False) -> Tree:
    """Return the tree written by `to_bytes`, with the structure, shapes and dtypes of `like`.

    Arrays come back as NumPy arrays (JAX would narrow 64-bit ones), typed PRNG keys as JAX key arrays, Python
    scalars as Python scalars. Leaves of `like` may be `jax.ShapeDtypeStruct`s.

    Args:
        data: the file's bytes.
        like: the expected tree.
        partial: whether `like` may be only a part of the file's tree.

    Raises:
        SerializationError: `data` is not such a file, or a leaf is missing, unexpected or of another type.
    """
    file = _read(data)
    named = _named_leaves(like)
    unexpected = sorted(set(file.arrays) - set(named))
    if unexpected and not partial:
        raise SerializationError(f"leaf {unexpected[0]}: is in the file and not in the expected tree")
    leaves = [_restored(name, leaf, file) for name, leaf in named.items()]
    tree: Tree = jax.tree.unflatten(jax.tree.structure(like), leaves)
    return tree


def read_metadata(data: bytes) -> dict[str, str]:
    """Return the metadata of a file from `to_bytes`, without reading the arrays.

    Raises:
        SerializationError: `data` does not start with the header of such a file.
    """
    metadata: dict[str, str] = _read_header(data)["metadata"]
    return metadata


def digest(tree: Any) -> str:
    """Return the SHA-256 of the leaves' raw little-endian bytes in canonical order, as hex digits.

    Raises:
        SerializationError: a leaf is not an array.
    """
    sha256 = hashlib.sha256()
    for name, leaf in _named_leaves(tree).items():
        sha256.update(_stored(name, leaf).tobytes())
    return sha256.hexdigest()


class _File(NamedTuple):
    """The contents of a file: arrays by leaf name, and the names of those that hold key data."""

    arrays: dict[str, Array]
    prng_keys: dict[str, str]


def _named_leaves(tree: Any) -> dict[str, Any]:
    flat, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {jax.tree_util.keystr(path): leaf for path, leaf in flat}


def _is_key(leaf: Any) -> bool:
    return hasattr(leaf, "dtype") and bool(jax.numpy.issubdtype(leaf.dtype, jax.dtypes.prng_key))


def _stored(name: str, leaf: Any) -> Array:
    """Return the array that represents the leaf in a file."""
    array = np.asarray(jax.random.key_data(leaf) if _is_key(leaf) else leaf, order="C")
    if str(array.dtype) not in _DTYPES.values():
        raise SerializationError(
            f"leaf {name or '.'}: {type(leaf).__name__} of dtype {array.dtype} cannot be stored; "
            f"make it an array of {', '.join(_DTYPES.values())}, a typed PRNG key, or part of the structure"
        )
    return array


def _restored(name: str, like: Any, file: _File) -> Any:
    """Return leaf `name` of the file with the type of `like`."""
    if name not in file.arrays:
        raise SerializationError(f"leaf {name or '.'}: is expected and not in the file")
    array, impl = file.arrays[name], file.prng_keys.get(name)
    value = array if impl is None else jax.random.wrap_key_data(jax.numpy.asarray(array), impl=impl)
    expected = like if hasattr(like, "dtype") else np.asarray(like)
    if value.dtype != expected.dtype or value.shape != expected.shape:
        raise SerializationError(
            f"leaf {name or '.'}: the file has {value.dtype}{list(value.shape)}, expected is "
            f"{expected.dtype}{list(expected.shape)}; it was written for another configuration"
        )
    return array.item() if isinstance(like, bool | int | float) else value


def _read(data: bytes) -> _File:
    header = _read_header(data)
    try:
        stored = safetensors.deserialize(data)  # type: ignore[no-untyped-call]  # no types in its stub
    except safetensors.SafetensorError as error:
        raise SerializationError(f"not a whole safetensors file ({len(data)} bytes): {error}") from error
    arrays = {}
    for name, tensor in stored:
        if tensor["dtype"] not in _DTYPES:
            raise SerializationError(f"leaf {name or '.'}: dtype {tensor['dtype']} is not supported")
        dtype = jax.numpy.dtype(_DTYPES[tensor["dtype"]])
        arrays[name] = np.frombuffer(tensor["data"], dtype).reshape(tensor["shape"])
    return _File(arrays, header["prng_keys"])


def _read_header(data: bytes) -> dict[str, Any]:
    """Return the metadata entry that `to_bytes` writes."""
    length = int.from_bytes(data[:_LENGTH_BYTES], "little")
    if len(data) < _LENGTH_BYTES or length > len(data) - _LENGTH_BYTES:
        raise SerializationError(f"not a safetensors file ({len(data)} bytes): its header is cut off")
    try:
        header = json.loads(data[_LENGTH_BYTES : _LENGTH_BYTES + length])
        entry = json.loads(header["__metadata__"][_ENTRY])
        return {"metadata": dict(entry["metadata"]), "prng_keys": dict(entry["prng_keys"])}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise SerializationError(f"a safetensors file that Unspool did not write: {error!r}") from error
