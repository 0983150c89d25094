"""MNIST and Fashion-MNIST from the authors' IDX files.

The four files of a data set, gzipped or not, must be in `$UNSPOOL_DATA_DIR/mnist` or
`$UNSPOOL_DATA_DIR/fashion_mnist`. Nothing is downloaded: a missing or malformed file is an error on first use
of the data. Source of the format: Y. LeCun, C. Cortes, C. J. C. Burges, "The MNIST database of handwritten
digits".
"""

import functools
import gzip
import io
import math
import os
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt

from unspool.tasks.datasets.base import Datasets, datasets_from
from unspool.types import PyTree

DATA_DIR_VARIABLE = "UNSPOOL_DATA_DIR"
_NUM_CLASSES = 10
_UNSIGNED_BYTE = 0x08
_PIECE_BYTES = 1 << 20
_IMAGES_PER_PIECE = 4096

UInt8Array = npt.NDArray[np.uint8]
Float32Array = npt.NDArray[np.float32]


def mnist_datasets(batch_size: int, image_size: tuple[int, int] = (28, 28)) -> Datasets:
    """Return MNIST as batches of `image` `[batch, *image_size, 1]` in [0, 1] and `label` `[batch]`.

    The first 80 % of the training file is `train`, the next 10 % `inner_valid`, the last 10 % `outer_valid`;
    the test file is `test`. Images are resized by averaging over areas.
    """
    return _idx_datasets("mnist", os.environ.get(DATA_DIR_VARIABLE), batch_size, image_size)


def fashion_mnist_datasets(batch_size: int, image_size: tuple[int, int] = (28, 28)) -> Datasets:
    """Return Fashion-MNIST (Xiao et al. 2017) in the form of `mnist_datasets`."""
    return _idx_datasets("fashion_mnist", os.environ.get(DATA_DIR_VARIABLE), batch_size, image_size)


@functools.cache
def _idx_datasets(
    dataset: str, data_dir: str | None, batch_size: int, image_size: tuple[int, int]
) -> Datasets:
    load_split = functools.partial(_load_split, dataset, data_dir, image_size)
    return datasets_from(load_split, batch_size, extra_info={"num_classes": _NUM_CLASSES})


def _load_split(dataset: str, data_dir: str | None, image_size: tuple[int, int], split: str) -> PyTree:
    if data_dir is None:
        raise FileNotFoundError(
            f"{dataset} was expected in ${DATA_DIR_VARIABLE}/{dataset}, but {DATA_DIR_VARIABLE} is not set: "
            "put the four standard IDX files (train-images-idx3-ubyte, train-labels-idx1-ubyte, "
            "t10k-images-idx3-ubyte, t10k-labels-idx1-ubyte, gzipped or not) into a folder named "
            f"{dataset} and set {DATA_DIR_VARIABLE} to the folder that contains it"
        )
    directory = Path(data_dir) / dataset
    if split == "test":
        return _load_examples(directory, "t10k", image_size)
    examples = _load_examples(directory, "train", image_size)
    num_examples = len(examples["label"])
    bounds = {"train": (0, 8), "inner_valid": (8, 9), "outer_valid": (9, 10)}
    start, stop = (num_examples * tenths // 10 for tenths in bounds[split])
    return {name: array[start:stop] for name, array in examples.items()}


@functools.cache
def _load_examples(directory: Path, prefix: str, image_size: tuple[int, int]) -> dict[str, PyTree]:
    """Return `image` `[n, *image_size, 1]` in [0, 1] and `label` `[n]` of one pair of files."""
    image_path = _find(directory, f"{prefix}-images-idx3-ubyte")
    label_path = _find(directory, f"{prefix}-labels-idx1-ubyte")
    images = read_idx(image_path, num_axes=3)
    labels = read_idx(label_path, num_axes=1)
    if len(images) != len(labels):
        raise ValueError(f"{image_path} has {len(images)} images but {label_path} has {len(labels)} labels")
    if labels.size and labels.max() >= _NUM_CLASSES:
        raise ValueError(
            f"{label_path}: label {labels.max()} is out of range, there are {_NUM_CLASSES} classes"
        )
    return {"image": resize_by_area(images, image_size)[..., None], "label": labels.astype(np.int32)}


def _find(directory: Path, name: str) -> Path:
    for path in (directory / f"{name}.gz", directory / name):
        if path.is_file():
            return path
    raise FileNotFoundError(
        f"{name}.gz (or {name}) is missing from {directory}, that is ${DATA_DIR_VARIABLE}/{directory.name}: "
        f"put the standard file of {directory.name} into that folder"
    )


def read_idx(path: Path, num_axes: int) -> UInt8Array:
    """Read an IDX file of unsigned bytes, gzipped if its name ends in `.gz`.

    Raises:
        ValueError: the file is not an IDX file of unsigned bytes with `num_axes` axes, is truncated, or is
            longer than its header states.
    """
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            return _parse(file, num_axes)
    except (ValueError, EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"{path} is not a valid IDX file: {error}") from error


def _parse(file: io.BufferedIOBase, num_axes: int) -> UInt8Array:
    header = file.read(4 + 4 * num_axes)
    magic = bytes([0, 0, _UNSIGNED_BYTE, num_axes])
    if header[:4] != magic:
        raise ValueError(f"it starts with {header[:4].hex()}, expected {magic.hex()}")
    if len(header) < 4 + 4 * num_axes:
        raise ValueError("its header is cut short")
    shape = tuple(int(length) for length in np.frombuffer(header, ">u4", offset=4))
    promised_bytes = math.prod(shape)
    # Read in chunks: the size in an untrusted header must not determine an allocation.
    payload = bytearray()
    while piece := file.read(_PIECE_BYTES):
        payload += piece
        if len(payload) > promised_bytes:
            break
    if len(payload) != promised_bytes:
        relation = "more" if len(payload) > promised_bytes else f"only {len(payload)}"
        raise ValueError(f"its header announces {promised_bytes} bytes of data, but it contains {relation}")
    return np.frombuffer(payload, np.uint8).reshape(shape)


def resize_by_area(images: UInt8Array, image_size: tuple[int, int]) -> Float32Array:
    """Scale `images` `[n, height, width]` to [0, 1] and to `[n, *image_size]`.

    Each new pixel is the mean of the area that it covers, with partly covered pixels weighted by their
    covered fraction, so sizes need not divide each other.
    """
    _, height, width = images.shape
    rows, columns = _area_weights(height, image_size[0]), _area_weights(width, image_size[1])
    resized = np.empty((len(images), *image_size), np.float32)
    for start in range(0, len(images), _IMAGES_PER_PIECE):
        piece = slice(start, start + _IMAGES_PER_PIECE)
        resized[piece] = rows @ (images[piece].astype(np.float32) / 255.0) @ columns.T
    return resized


def _area_weights(old: int, new: int) -> Float32Array:
    """Return the weights `[new, old]`: the fraction of each new cell's interval that each old cell covers."""
    edges = np.linspace(0, old, new + 1)
    cells = np.arange(old)
    overlap = np.minimum(edges[1:, None], cells + 1) - np.maximum(edges[:-1, None], cells)
    return np.asarray(np.clip(overlap, 0, None) * (new / old), np.float32)
