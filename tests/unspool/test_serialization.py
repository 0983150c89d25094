import hashlib
import subprocess
import sys
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st

from unspool.serialization import SerializationError, digest, from_bytes, read_metadata, to_bytes


class State(NamedTuple):
    weights: Any
    step: Any


def example() -> Any:
    return {
        "params": State(jnp.arange(6.0).reshape(2, 3), jnp.int32(4)),
        "half": [jnp.ones(3, jnp.bfloat16), jnp.zeros((0, 2), jnp.float16)],
        "flags": np.array([True, False]),
        "wide": (np.arange(3, dtype=np.int64), np.float64(0.1)),
        "none": None,
    }


def same(left: Any, right: Any) -> bool:
    pairs = zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True)
    return all(
        np.asarray(a).dtype == np.asarray(b).dtype and np.asarray(a).tobytes() == np.asarray(b).tobytes()
        for a, b in pairs
    )


def test_a_tree_comes_back_as_it_was() -> None:
    back = from_bytes(to_bytes(example(), {}), example())
    assert jax.tree.structure(back) == jax.tree.structure(example())
    assert same(back, example())


@pytest.mark.parametrize(
    "dtype",
    ["float64", "float32", "float16", "bfloat16", "bool"]
    + [f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)],
)
@pytest.mark.parametrize("shape", [(), (0,), (2, 3)], ids=str)
def test_every_dtype_and_shape_comes_back(dtype: str, shape: tuple[int, ...]) -> None:
    array = np.ones(shape, jnp.dtype(dtype))
    back = from_bytes(to_bytes(array, {}), array)
    assert (back.dtype, back.shape, back.tobytes()) == (array.dtype, array.shape, array.tobytes())


@pytest.mark.parametrize("impl", ["threefry2x32", "rbg"])
def test_typed_keys_come_back_as_keys(impl: str) -> None:
    keys = {"one": jax.random.key(1, impl=impl), "many": jax.random.split(jax.random.key(2, impl=impl), 3)}
    back = from_bytes(to_bytes(keys, {}), jax.eval_shape(lambda: keys))
    assert back["one"].dtype == keys["one"].dtype
    assert same(jax.tree.map(jax.random.key_data, back), jax.tree.map(jax.random.key_data, keys))


def test_a_key_of_another_kind_is_rejected() -> None:
    data = to_bytes(jax.random.key(1, impl="rbg"), {})
    with pytest.raises(SerializationError, match=r"leaf \.: the file has key<rbg>\[\], expected is key<fry>"):
        from_bytes(data, jax.random.key(1, impl="threefry2x32"))


def test_python_scalars_come_back_as_python_scalars() -> None:
    tree = {"lr": 0.5, "steps": 3, "on": True}
    assert from_bytes(to_bytes(tree, {}), tree) == tree


def test_arrays_that_are_not_contiguous_are_written_in_order() -> None:
    array = np.arange(6).reshape(2, 3).T
    assert np.array_equal(from_bytes(to_bytes(array, {}), array), array)


def test_metadata_is_read_without_the_arrays() -> None:
    data = to_bytes(example(), {"run": "a", "step": "3"})
    assert read_metadata(data[: 8 + int.from_bytes(data[:8], "little")]) == {"run": "a", "step": "3"}


def test_equal_trees_have_equal_bytes_in_every_process() -> None:
    script = (
        "import sys, numpy; from unspool.serialization import to_bytes;"
        "sys.stdout.buffer.write(to_bytes({'a': numpy.ones(3), 'b': 1}, {'x': '1', 'y': '2', 'z': '3'}))"
    )
    other = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True).stdout
    assert other == to_bytes({"a": np.ones(3), "b": 1}, {"x": "1", "y": "2", "z": "3"})


def test_the_public_library_reads_the_file() -> None:
    loaded = safetensors.numpy.load(to_bytes({"a": np.arange(3.0)}, {"x": "1"}))
    assert np.array_equal(loaded["['a']"], np.arange(3.0))


@pytest.mark.parametrize(
    "leaf", ["text", 1j, object(), np.array(["a"])], ids=lambda leaf: type(leaf).__name__
)
def test_a_leaf_that_cannot_be_stored_is_named_with_the_remedy(leaf: Any) -> None:
    with pytest.raises(
        SerializationError, match=r"leaf \['x'\]\['y'\]: .* cannot be stored; make it an array"
    ):
        to_bytes({"x": {"y": leaf}}, {})


@pytest.mark.parametrize(
    ("like", "message"),
    [
        ({"a": np.zeros(2)}, r"leaf \['b'\]: is in the file and not in the expected tree"),
        (
            {"a": np.zeros(2), "b": np.zeros(1), "c": np.zeros(1)},
            r"leaf \['c'\]: is expected and not in the file",
        ),
        (
            {"a": np.zeros(3), "b": np.zeros(1)},
            r"leaf \['a'\]: the file has float64\[2\], expected is float64\[3\]",
        ),
        ({"a": np.zeros(2, np.float32), "b": np.zeros(1)}, r"leaf \['a'\]: .* expected is float32\[2\]"),
    ],
    ids=["unexpected", "missing", "shape", "dtype"],
)
def test_a_file_of_another_tree_is_rejected_by_the_leaf(like: Any, message: str) -> None:
    data = to_bytes({"a": np.zeros(2), "b": np.zeros(1)}, {})
    with pytest.raises(SerializationError, match=message):
        from_bytes(data, like)


def test_a_part_of_a_file_can_be_read() -> None:
    data = to_bytes({"a": np.ones(2), "b": np.zeros(1)}, {})
    assert np.array_equal(from_bytes(data, {"a": np.zeros(2)}, partial=True)["a"], np.ones(2))


@given(cut=st.integers(0, 400), flip=st.integers(0, 400), junk=st.binary(max_size=4))
def test_damaged_files_are_rejected_with_a_typed_error_only(cut: int, flip: int, junk: bytes) -> None:
    tree = {"a": np.ones(4, np.float32), "b": np.array([True])}
    data = bytearray(to_bytes(tree, {"x": "1"}))
    data[flip % len(data)] ^= 0x55
    damaged = bytes(data[: len(data) - cut % len(data)]) + junk
    try:
        from_bytes(damaged, tree)
    except SerializationError:
        return


@pytest.mark.parametrize("data", [b"", b"abc", b"\xff" * 16, safetensors.numpy.save({"a": np.ones(1)})])
def test_what_is_no_such_file_is_rejected(data: bytes) -> None:
    with pytest.raises(SerializationError):
        read_metadata(data)


def test_the_digest_is_that_of_the_leaves_bytes_in_order() -> None:
    tree = {"b": np.array([2.0], np.float32), "a": np.array([1], np.int32)}
    expected = hashlib.sha256(np.array([1], "<i4").tobytes() + np.array([2.0], "<f4").tobytes()).hexdigest()
    assert digest(tree) == expected


def test_digests_tell_one_bit_apart() -> None:
    assert digest(np.float32(1.0)) != digest(np.nextafter(np.float32(1.0), np.float32(2.0)))
